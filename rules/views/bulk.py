"""Bulk actions: choose, see what will happen to each, confirm; and the decisions made so, with their undoing."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import Role
from rules.forms.assignments import AssignmentForm
from rules.forms.bulk import ApproveForm, BulkAct, DeferForm, RejectForm, TagForm, shown_read, shown_written
from rules.models import BatchAct, Task
from rules.selectors.batches import batch_get, batches_of, lines_of
from rules.selectors.bulk import MAX_ROWS, TYPED_FROM
from rules.selectors.bulk_preview import BulkPreview, bulk_preview, evidence_to_name, numbers_in_view
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_preference import preference_of
from rules.selectors.tags import tags_of_task
from rules.services import batches, tags
from rules.services.assignments import batch_assign
from rules.services.batches import BulkDone, NothingDone, Shown
from rules.views.review_links import card_url, queue_url, view_of

type Act = Callable[[UserRequest, Task, Shown, Any], BulkDone]


@roles_required(Role.REVIEWER, Role.ADMIN)
@require_POST
def review_bulk(request: UserRequest, slug: str) -> HttpResponse:
    """First the page that says what will happen to each; sent again with what it showed, it happens."""
    task = get_object_or_404(Task, slug=slug)
    view = view_of(request, task)
    if request.POST.get("act") not in BulkAct.values:
        raise InvalidInput(_("Choose what to do with the ticked instructions."))
    act = BulkAct(request.POST["act"])
    if act in BatchAct.values and request.user.role != Role.REVIEWER:
        raise NotAllowed
    if "shown" in request.POST:
        return _act(request, task, view, act)
    numbers, total = _picked(request, task, view)
    form = _form(request, task, act, None)
    return _preview(request, task, view, act, numbers=numbers, form=form, total=total)


def _picked(request: UserRequest, task: Task, view: ReviewFilter) -> tuple[list[int], int]:
    """The numbers that were ticked, or all of the view; and how many there would be."""
    if "all" in request.POST:
        return numbers_in_view(task, view, request.user)
    sent = dict.fromkeys([*request.POST.getlist("opened"), *request.POST.getlist("pick")])
    numbers = [int(one) for one in sent if one.isascii() and one.isdigit() and len(one) < 10]
    if not numbers:
        raise InvalidInput(_("Tick at least one instruction, then choose what to do."))
    return numbers[:MAX_ROWS], len(numbers)


def _form(request: UserRequest, task: Task, act: BulkAct, data: Any) -> forms.Form:
    if act == BulkAct.APPROVE:
        sent = request.POST.get("opened", "")
        opened = int(sent) if sent.isascii() and sent.isdigit() and len(sent) < 10 else None
        return ApproveForm(data, opened=opened, evidence=_evidence(request, task, opened))
    if act == BulkAct.ASSIGN:
        return AssignmentForm(data, current=None)
    return {BulkAct.REJECT: RejectForm, BulkAct.DEFER: DeferForm, BulkAct.TAG: TagForm}[act](data)


def _evidence(request: UserRequest, task: Task, opened: int | None) -> list[tuple[str, str]]:
    named = evidence_to_name(task, opened, request.user)
    return [] if named is None else [*named, ("0", _("None of these: what I know of the matter"))]


def _preview(
    request: UserRequest,
    task: Task,
    view: ReviewFilter,
    act: BulkAct,
    *,
    numbers: list[int],
    form: forms.Form,
    total: int = 0,
    refused: dict[int, str] | None = None,
    typed_error: str = "",
    status: int = 200,
) -> HttpResponse:
    opened = form.initial.get("opened") if act == BulkAct.APPROVE else None
    preview = bulk_preview(task, request.user, act, numbers, opened=opened, refused=refused or {})
    context = {
        "task": task,
        "view": view,
        "act": act,
        "title": _asked(act, preview),
        "preview": preview,
        "form": form,
        "opened": opened,
        "shown": shown_written(preview.shown),
        "more": max(0, total - len(numbers)),
        "known_tags": tags_of_task(task) if act == BulkAct.TAG else [],
        "typed_error": typed_error,
        "is_refused": status != 200,
    }
    return render(request, "rules/bulk_preview.html", context, status=status)


def _asked(act: BulkAct, preview: BulkPreview) -> str:
    count = len(preview.changed)
    titles = {
        BulkAct.APPROVE: ngettext("Approve %(n)d instruction?", "Approve %(n)d instructions?", count),
        BulkAct.REJECT: ngettext("Reject %(n)d instruction?", "Reject %(n)d instructions?", count),
        BulkAct.DEFER: ngettext("Defer %(n)d instruction?", "Defer %(n)d instructions?", count),
        BulkAct.ASSIGN: ngettext("Assign %(n)d instruction?", "Assign %(n)d instructions?", count),
        BulkAct.TAG: ngettext("Tag %(n)d instruction?", "Tag %(n)d instructions?", count),
    }
    return titles[act] % {"n": count}


def _act(request: UserRequest, task: Task, view: ReviewFilter, act: BulkAct) -> HttpResponse:
    shown = shown_read(request.POST["shown"])
    form = _form(request, task, act, request.POST)
    again = partial(_preview, request, task, view, act, numbers=list(shown), form=form)
    typed_error = _typed_error(request, len(shown))
    if form.is_valid() and not typed_error:
        try:
            done = _ACTS[act](request, task, shown, form)
        except NothingDone as refusal:
            return again(refused=refusal.refused, status=refusal.status)
        except InvalidInput as refusal:
            form.add_error(None, str(refusal.user_message))
        else:
            return _told(request, task, view, act, done)
    return again(typed_error=typed_error, status=422)


def _typed_error(request: UserRequest, count: int) -> str:
    if count <= TYPED_FROM or request.POST.get("typed", "").strip() == str(count):
        return ""
    return _("Type %(n)d to go on: that is how many instructions this changes.") % {"n": count}


def _reject(request: UserRequest, task: Task, shown: Shown, form: RejectForm) -> BulkDone:
    return batches.batch_reject(task=task, actor=request.user, shown=shown, **form.cleaned_data)


def _defer(request: UserRequest, task: Task, shown: Shown, form: DeferForm) -> BulkDone:
    return batches.batch_defer(task=task, actor=request.user, shown=shown, note=form.said)


def _approve(request: UserRequest, task: Task, shown: Shown, form: ApproveForm) -> BulkDone:
    opened = form.cleaned_data["opened"]
    return batches.batch_approve(task=task, actor=request.user, opened=opened, shown=shown, convinced=form.place)


def _assign(request: UserRequest, task: Task, shown: Shown, form: AssignmentForm) -> BulkDone:
    due_on = form.cleaned_data["due_on"] if form.person or form.pool else None
    return batch_assign(task=task, by=request.user, shown=shown, person=form.person, pool=form.pool, due_on=due_on)


def _tag(request: UserRequest, task: Task, shown: Shown, form: TagForm) -> BulkDone:
    act = tags.batch_tag if form.cleaned_data["what"] == "on" else tags.batch_untag
    return act(task=task, by=request.user, shown=shown, name=form.cleaned_data["name"])


_ACTS: dict[BulkAct, Act] = {
    BulkAct.APPROVE: _approve,
    BulkAct.REJECT: _reject,
    BulkAct.DEFER: _defer,
    BulkAct.ASSIGN: _assign,
    BulkAct.TAG: _tag,
}


def _told(request: UserRequest, task: Task, view: ReviewFilter, act: BulkAct, done: BulkDone) -> HttpResponse:
    """To what was done, with its undoing; a tag or assignment leads back to the queue."""
    count = len(done.done)
    said = ngettext("%(n)d instruction changed: %(what)s.", "%(n)d instructions changed: %(what)s.", count)
    messages.success(request, said % {"n": count, "what": str(act.label).lower()})
    if done.refused:
        left = "; ".join(f"#{number}: {why}" for number, why in done.refused.items())
        messages.warning(request, _("Left as they are. %(which)s") % {"which": left})
    if done.batch is not None:
        return redirect("batch-detail", task.slug, done.batch.pk)
    return redirect(queue_url(task, view))


@roles_required()
@require_GET
def batch_list(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    page = batches_of(task, request.user, request.GET.get("page"))
    return render(request, "rules/batch_list.html", {"task": task, "page": page})


@roles_required()
@require_GET
def batch_detail(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    batch = batch_get(slug, pk)
    lines = lines_of(batch, request.user)
    context = {
        "task": batch.task,
        "batch": batch,
        "lines": lines,
        "undoable": sum(not line.stays for line in lines) if batch.undone_at is None else 0,
        "is_own": batch.actor_id == request.user.pk and request.user.role == Role.REVIEWER,
        "keys": preference_of(request.user).keys,
    }
    return render(request, "rules/batch_detail.html", context)


@roles_required(Role.REVIEWER)
@require_POST
def batch_undo(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    batch = batch_get(slug, pk)
    done = batches.batch_undo(batch_id=batch.pk, actor=request.user)
    count = len(done.done)
    said = ngettext("%(n)d decision is taken back.", "%(n)d decisions are taken back.", count)
    messages.success(request, said % {"n": count})
    return redirect("batch-detail", slug, pk)


@roles_required(Role.REVIEWER, Role.ADMIN)
@require_POST
def review_tag(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Put one tag on a card, or take the one that `remove` names off it."""
    task = get_object_or_404(Task, slug=slug)
    off, name = request.POST.get("remove", ""), request.POST.get("name", "")
    act = tags.batch_untag if off else tags.batch_tag
    try:
        act(task=task, by=request.user, shown={number: 0}, name=off or name)
    except NothingDone as refusal:
        raise InvalidInput(next(iter(refusal.refused.values()))) from refusal
    messages.success(
        request, (_("Tag “%(name)s” taken off.") if off else _("Tagged “%(name)s”.")) % {"name": off or name}
    )
    return redirect(card_url(task, number, view_of(request, task)))
