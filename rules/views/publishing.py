"""Releases, the two channels, and the tokens of the student's service."""

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.forms.gates import GateExceptionForm
from rules.forms.publishing import PublishForm, RollbackForm, TokenForm
from rules.hooks import ruleset_evidence
from rules.models import ChannelName, PromptToken, Publication, PublicationKind, Release, Task
from rules.selectors import publishing as selectors
from rules.selectors.approvals import approved_rules
from rules.selectors.flags import release_flags
from rules.selectors.gates import gates_in_force, standing
from rules.selectors.prompt_sizes import prompt_tokens
from rules.selectors.signatures import signatures_of
from rules.selectors.tasks import task_get
from rules.services import tokens as token_services
from rules.services.exporting import ruleset_export
from rules.services.publishing import release_publish, release_rollback
from rules.views.rulesets import EXPORTERS, export_kind, export_response

PER_PAGE = 25
HISTORY_SHOWN = 25


@roles_required()
@require_GET
def releases(request: UserRequest, slug: str) -> HttpResponse:
    return _releases_page(request, task_get(slug))


def _releases_page(request: UserRequest, task: Task, failed: PublishForm | None = None) -> HttpResponse:
    """`failed` is the form that was sent and not taken: it is shown again, with its errors, in its channel."""
    can_publish = request.user.role == Role.SIGNATORY
    panels: list[dict[str, Any]] = [  # a template's context has no closed type
        _panel(state, failed) if can_publish else {"state": state} for state in selectors.channel_states(task)
    ]
    for panel in panels:
        served = panel["state"].publication
        if served:
            served.release.task = task
        panel["flags"] = release_flags(served.release) if served else []
    context = {
        "task": task,
        "panels": panels,
        "can_publish": can_publish,
        "gates": gates_in_force(task),
        "page": Paginator(selectors.releases(task), PER_PAGE).get_page(request.GET.get("page")),
        "history": Paginator(selectors.publications(task), HISTORY_SHOWN).get_page(request.GET.get("history")),
    }
    return render(request, "rules/releases.html", context, status=422 if failed else 200)


def _panel(state: selectors.ChannelState, failed: PublishForm | None) -> dict[str, Any]:
    """A channel with its two forms."""
    choices = {"publish": state.can_publish, "rollback": state.can_roll_back}
    forms: dict[str, Any] = {"state": state}
    for name, kind in (("publish", PublishForm), ("rollback", RollbackForm)):
        if isinstance(failed, kind) and type(failed) is kind and failed.data.get("channel") == state.channel:
            form = failed
        else:
            initial = {"newest": state.newest_id, "channel": state.channel.value}
            form = kind(initial=initial, auto_id=f"{name}-{state.channel}-%s")
        _offer(form, choices[name])
        forms[name] = form
    return forms


def _offer(form: PublishForm, releases: list[Release]) -> None:
    form.fields["release"].choices = [(one.pk, str(one)) for one in releases]  # type: ignore[attr-defined]  # a choice field


def _move(request: UserRequest, slug: str, kind: type[PublishForm]) -> HttpResponse:
    task = task_get(slug)
    name = "rollback" if kind is RollbackForm else "publish"
    # The channel is what somebody sent: only a known one may be part of a format.
    channel = request.POST.get("channel", "")
    form = kind(request.POST, auto_id=f"{name}-{channel if channel in ChannelName.values else ''}-%s")
    _offer(form, list(Release.objects.filter(task=task).defer("prompt")))
    if form.is_valid():
        values = form.cleaned_data
        move = {
            "release_id": values["release"],
            "channel": values["channel"],
            "actor": request.user,
            "proof": form.proof(request),
            "expected_newest": values["newest"],
        }
        try:
            if kind is RollbackForm:
                publication = release_rollback(**move, reason=values["reason"])
            else:
                publication = release_publish(**move)
        except InvalidInput as refusal:
            form.add_error("password", str(refusal))
        else:
            messages.success(request, _moved_words(publication))
            return redirect("releases", slug=slug)
    return _releases_page(request, task, failed=form)


def _moved_words(publication: Publication) -> str:
    names = {"version": publication.release, "channel": publication.get_channel_display()}
    if publication.kind == PublicationKind.ROLLBACK:
        return _("Rolled %(channel)s back to %(version)s.") % names
    return _("Published %(version)s to %(channel)s.") % names


@roles_required(Role.SIGNATORY)
@require_POST
def publish(request: UserRequest, slug: str) -> HttpResponse:
    return _move(request, slug, PublishForm)


@roles_required(Role.SIGNATORY)
@require_POST
def rollback(request: UserRequest, slug: str) -> HttpResponse:
    return _move(request, slug, RollbackForm)


@roles_required()
@require_GET
def release_detail(request: UserRequest, slug: str, version: int) -> HttpResponse:
    return release_page(request, selectors.release_get(slug, version))


def release_page(
    request: UserRequest, release: Release, exception_form: GateExceptionForm | None = None
) -> HttpResponse:
    """One release; `exception_form` is one that was sent and not taken."""
    how = standing(release.ruleset)
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": release.task,
        "release": release,
        "standing": how,
        "verdicts": ruleset_evidence(release.ruleset).verdicts,
        "flags": release_flags(release),
        "exceptions": list(release.gate_exceptions.select_related("policy", "reauthentication")),
        "manifest": selectors.release_manifest(release),
        "rules": approved_rules(release.ruleset),
        "signatures": signatures_of(release.ruleset),
        "publications": selectors.publications_sealed(release),
        "prompt_bytes": len(release.prompt.encode()),
        "tokens": prompt_tokens(release.task.student, release.prompt),
        "can_export": request.user.role in EXPORTERS,
    }
    if how is not None and not how.passes and request.user.role == Role.SIGNATORY:
        shown = {"gates": how.policy.version}
        context["exception_form"] = exception_form or GateExceptionForm(initial=shown, auto_id="exception-%s")
    return render(request, "rules/release_detail.html", context, status=422 if exception_form else 200)


@roles_required(*EXPORTERS)
@require_GET
def release_download(request: UserRequest, slug: str, version: int, kind: str) -> StreamingHttpResponse:
    release = selectors.release_get(slug, version)
    release.ruleset.task = release.task
    return export_response(ruleset_export(ruleset=release.ruleset, kind=export_kind(kind), actor=request.user))


@roles_required(Role.ADMIN, Role.AUDITOR)
@require_http_methods(["GET"])
def tokens(request: UserRequest, slug: str) -> HttpResponse:
    return _tokens_page(request, task_get(slug), TokenForm())


def _tokens_page(request: UserRequest, task: Task, form: TokenForm, secret: str = "") -> HttpResponse:
    context = {
        "task": task,
        "form": form,
        "secret": secret,
        "can_manage": request.user.role == Role.ADMIN,
        "page": Paginator(selectors.tokens(task), PER_PAGE).get_page(request.GET.get("page")),
    }
    return render(request, "rules/tokens.html", context, status=422 if form.errors else 200)


@roles_required(Role.ADMIN)
@require_POST
@never_cache
def token_new(request: UserRequest, slug: str) -> HttpResponse:
    """Answers with the secret itself instead of a redirect: it is in no session, no log and no other page."""
    task = task_get(slug)
    form = TokenForm(request.POST)
    if not form.is_valid():
        return _tokens_page(request, task, form)
    _token, secret = token_services.token_create(task=task, actor=request.user, **form.cleaned_data)
    return _tokens_page(request, task, TokenForm(), secret)


@roles_required(Role.ADMIN)
@require_POST
def token_revoke(request: UserRequest, slug: str, pk: int) -> HttpResponse:
    token = get_object_or_404(PromptToken.objects.only("pk"), task__slug=slug, pk=pk)
    token = token_services.token_revoke(token_id=token.pk, actor=request.user)
    messages.success(request, _("Revoked %(token)s. It opens nothing any more.") % {"token": token})
    return redirect("tokens", slug=slug)
