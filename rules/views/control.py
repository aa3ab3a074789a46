"""Stopping at once, signing under it, lifting it; publishing at a time to come."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.control import CancelForm, ScheduleForm, StopForm, StopSignForm
from rules.models import EmergencyStop, ScheduledPublication, StopSignatureKind, Task
from rules.selectors import control as selectors
from rules.selectors.publishing import channel_states
from rules.selectors.tasks import task_get
from rules.services.scheduling import publication_schedule, schedule_cancel
from rules.services.stopping import STOPPERS, stop_make, stop_sign


@roles_required()
@require_GET
def control(request: UserRequest, slug: str) -> HttpResponse:
    return _page(request, task_get(slug))


def _page(request: UserRequest, task: Task, failed: forms.Form | None = None, stop_pk: int = 0) -> HttpResponse:
    """`failed` is the form that was sent and not taken: it is shown again in its place, with its errors."""
    is_signatory = request.user.role == Role.SIGNATORY
    stop_form = failed if isinstance(failed, StopForm) else StopForm(auto_id="stop-%s")
    _choose(stop_form, "target", selectors.stoppable(task))
    schedule_form = failed if isinstance(failed, ScheduleForm) else None
    if is_signatory:
        schedule_form = schedule_form or ScheduleForm(initial=_newest(task), auto_id="schedule-%s")
        _choose(schedule_form, "release", _releases(task))
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": task,
        "stops": [(row, _sign_form(row, failed, stop_pk)) for row in selectors.stops_active(task)],
        "lifted": selectors.stops_history(task),
        "schedules": selectors.schedules(task),
        "can_stop": request.user.role in STOPPERS,
        "is_signatory": is_signatory,
        "stop_form": stop_form,
        "schedule_form": schedule_form,
        "cancel_form": CancelForm(auto_id=False),
    }
    return render(request, "rules/control.html", context, status=422 if failed else 200)


def _sign_form(row: selectors.StopRow, failed: forms.Form | None, stop_pk: int) -> StopSignForm:
    if isinstance(failed, StopSignForm) and stop_pk == row.stop.pk:
        return failed
    return StopSignForm(initial={"stop": row.stop.pk}, auto_id=f"stop-{row.stop.pk}-%s")


def _choose(form: forms.Form, name: str, choices: list[tuple[Any, str]]) -> None:
    form.fields[name].choices = choices  # type: ignore[attr-defined]  # a choice field


def _newest(task: Task) -> dict[str, int]:
    return {f"newest_{state.channel.value}": state.newest_id for state in channel_states(task)}


def _releases(task: Task) -> list[tuple[int, str]]:
    releases = task.releases.filter(ruleset__status="signed").select_related("ruleset")
    return [
        (one.pk, f"{one}, {one.ruleset}") for one in releases.defer("prompt", "ruleset__prompt", "ruleset__manifest")
    ]


@roles_required(*STOPPERS)
@require_POST
def stop_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = StopForm(request.POST, auto_id="stop-%s")
    _choose(form, "target", selectors.stoppable(task))
    if not form.is_valid():
        return _page(request, task, failed=form)
    kind, _colon, key = form.cleaned_data["target"].partition(":")
    stop = stop_make(task=task, actor=request.user, reason=form.cleaned_data["reason"], **{f"{kind}_id": int(key)})
    message = _("Stopped %(what)s. A second person's signature is asked within 24 hours.")
    messages.success(request, message % {"what": stop})
    return redirect("control", slug=slug)


@roles_required(Role.SIGNATORY)
@require_POST
def stop_signature(request: UserRequest, slug: str, pk: int, kind: str) -> HttpResponse:
    task = task_get(slug)
    stop = get_object_or_404(EmergencyStop.objects.only("pk"), task=task, pk=pk)
    form = StopSignForm(request.POST, auto_id=f"stop-{pk}-%s")
    if form.is_valid() and form.cleaned_data["stop"] == stop.pk:
        why = form.cleaned_data["reason"]
        with form.refusals("reason"):
            stop_sign(stop_id=stop.pk, actor=request.user, kind=kind, proof=form.proof(request), reason=why)
            lifted = kind == StopSignatureKind.LIFT
            messages.success(request, _("Lifted.") if lifted else _("Signed. The stop stands until it is lifted."))
            return redirect("control", slug=slug)
    return _page(request, task, failed=form, stop_pk=pk)


@roles_required(Role.SIGNATORY)
@require_POST
def schedule_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = ScheduleForm(request.POST, auto_id="schedule-%s")
    _choose(form, "release", _releases(task))
    if form.is_valid():
        with form.refusals("effective_from"):
            plan = publication_schedule(actor=request.user, proof=form.proof(request), **form.values())
            names = {"release": plan.release, "at": plan.effective_from.strftime("%Y-%m-%d %H:%M")}
            messages.success(
                request, _("Scheduled %(release)s for %(at)s UTC. Everything is checked again then.") % names
            )
            return redirect("control", slug=slug)
    return _page(request, task, failed=form)


@roles_required(Role.SIGNATORY)
@require_POST
def schedule_end(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    plan = get_object_or_404(ScheduledPublication.objects.only("pk"), task__slug=slug, pk=pk)
    form = CancelForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(_("Say why you cancel it."))
    schedule_cancel(schedule_id=plan.pk, actor=request.user, reason=form.cleaned_data["reason"])
    messages.success(request, _("Cancelled. It will not be published."))
    return redirect("control", slug=slug)
