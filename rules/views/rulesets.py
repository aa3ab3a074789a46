"""Rulesets: the list, composing a draft, freezing, signing, withdrawing, exporting."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST
from django.views.decorators.vary import vary_on_headers

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role, User
from rules.forms.rulesets import (
    AddForm,
    MoveForm,
    RulesetForm,
    SignForm,
    VersionForm,
    WithdrawForm,
    WithdrawFrozenForm,
)
from rules.hooks import ruleset_evidence
from rules.models import Instruction, Ruleset, RulesetItem, RulesetStatus, Signature
from rules.selectors import publishing
from rules.selectors import rulesets as selectors
from rules.selectors.comments import open_count
from rules.selectors.flags import changed_evidence
from rules.selectors.gates import standing
from rules.selectors.impacts import measured_lines
from rules.selectors.prompt_sizes import prompt_tokens
from rules.selectors.signatures import signatures_of
from rules.selectors.signing import open_comments, reading_list
from rules.selectors.tasks import task_get
from rules.services import rulesets as services
from rules.services.exporting import Export, ExportKind, ruleset_export
from rules.services.publishing import release_create
from rules.services.signing import rule_read, ruleset_sign
from rules.services.withdrawing import ruleset_withdraw
from rules.suggestions import idle_lines, suggestions_of

PER_PAGE = 25
SUGGESTIONS_SHOWN = 25


@roles_required()
@require_GET
def ruleset_list(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    page = Paginator(selectors.ruleset_list(task), PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "rules/ruleset_list.html", {"task": task, "page": page})


@roles_required(Role.REVIEWER)
@require_http_methods(["GET", "POST"])
def ruleset_new(request: UserRequest, slug: str) -> HttpResponse:
    task = task_get(slug)
    form = RulesetForm(request.POST or None, initial={"key": uuid4()})
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        ruleset = services.ruleset_create(
            task=task, composer=request.user, name=values["name"], start=values["start"], form_key=values["key"]
        )
        messages.success(request, _("Opened %(ruleset)s as a draft.") % {"ruleset": ruleset})
        return redirect("ruleset-detail", slug=slug, number=ruleset.number)
    context = {"task": task, "form": form, "approved": selectors.publishable(task).count()}
    return render(request, "rules/ruleset_new.html", context, status=422 if form.errors else 200)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def ruleset_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    ruleset = selectors.ruleset_get(slug, number)
    if ruleset.manifest is None:
        return _draft_page(request, ruleset)
    return _frozen_page(request, ruleset)


@dataclass(frozen=True)
class _Moved:
    """The item a person just moved: its buttons keep the focus, so that it can be moved on."""

    item_id: int = 0
    down: bool = False


def _draft_page(request: UserRequest, ruleset: Ruleset, moved: _Moved = _Moved(), said: str = "") -> HttpResponse:
    """The draft, or only its composing part for htmx; `said` is read out."""
    items = selectors.ruleset_items(ruleset)
    rows = selectors.draft_rows(items, ruleset.task.labels)
    words = request.GET.get("q", "").replace("\x00", "")
    addable = selectors.addable(ruleset, words)
    try:
        compiled = selectors.ruleset_compile(ruleset, items)
    except ValueError:
        compiled = None  # an instruction without visible text: the page shows it, freezing refuses it
    looked = suggestions_of(selectors.draft_lines(items))
    measured = measured_lines(ruleset, items)
    idle = idle_lines(measured, looked.found)
    context = {
        "task": ruleset.task,
        "ruleset": ruleset,
        "rows": rows,
        "outdated": sum(bool(row.outdated) for row in rows),
        "addable": addable[: selectors.ADDABLE_SHOWN],
        "addable_count": addable.count(),
        "q": words,
        "compiled": compiled,
        "tokens": prompt_tokens(ruleset.task.student, compiled.prompt) if compiled else None,
        "suggestions": looked.found[:SUGGESTIONS_SHOWN],
        "suggestion_count": len(looked.found),
        "suggestions_looked_at": looked.lines,
        "open_comments": open_count(row.item.instruction_id for row in rows),
        "idle": idle[:SUGGESTIONS_SHOWN],
        "idle_count": len(idle),
        "measured_count": len(measured),
        "can_compose": ruleset.status == RulesetStatus.DRAFT and request.user.role == Role.REVIEWER,
        "can_withdraw": services.may_withdraw(ruleset, request.user),
        "withdraw_form": WithdrawForm(auto_id="withdraw-%s"),
        "moved": moved.item_id,
        "moved_down": moved.down,
        "said": said,
    }
    template = "rules/ruleset_draft.html" + ("#draft" if request.htmx else "")
    return render(request, template, context)


def _frozen_page(
    request: UserRequest, ruleset: Ruleset, sign_form: SignForm | None = None, withdraw_form: WithdrawForm | None = None
) -> HttpResponse:
    manifest = selectors.ruleset_manifest(ruleset)
    if manifest is None:
        raise Http404
    signatures = list(ruleset.signatures.order_by("pk"))
    signers = selectors.signers(ruleset)
    me = next((one for one in signers if one.user.pk == request.user.pk), None)
    may_sign = ruleset.status == RulesetStatus.IN_SIGN_OFF and me and not (me.signature or me.excluded)
    to_read = reading_list(ruleset, request.user) if may_sign and manifest.policy.read_changed_first else []
    unread = sum(not one.is_read for one in to_read)
    can_author = _can_author(ruleset, request.user)
    form = sign_form or SignForm(initial={"manifest_sha256": ruleset.manifest_sha256}, auto_id="sign-%s")
    production, changes = publishing.changes_against_production(ruleset.task, manifest)
    context: dict[str, Any] = {  # a template's context has no closed type
        "task": ruleset.task,
        "ruleset": ruleset,
        "release": getattr(ruleset, "release", None),
        "rows": selectors.manifest_rows(manifest),
        "signatures": signatures_of(ruleset),
        "signature_state": selectors.signature_state(manifest.policy, signatures),
        "signers": signers,
        "me": me,
        "tokens": prompt_tokens(ruleset.task.student, ruleset.prompt),
        "production": production,
        "changes": changes,
        "evidence": ruleset_evidence(ruleset),
        "standing": standing(ruleset),
        "changed_evidence": changed_evidence(ruleset),
        "production_evidence": ruleset_evidence(production.ruleset) if production else None,
        "comments": open_comments(ruleset),
        "to_read": to_read,
        "unread": unread,
        "can_sign": can_author or (may_sign and not unread),
        "can_author": can_author,
        "sign_form": form.for_author() if can_author else form.for_signer(),
        "can_release": ruleset.status == RulesetStatus.SIGNED and request.user.role == Role.SIGNATORY,
        "can_withdraw": services.may_withdraw(ruleset, request.user),
        "withdraw_form": withdraw_form or _withdraw_form(ruleset)(auto_id="withdraw-%s"),
        "can_export": request.user.role in EXPORTERS,
    }
    failed = (sign_form is not None and sign_form.errors) or (withdraw_form is not None and withdraw_form.errors)
    return render(request, "rules/ruleset_frozen.html", context, status=422 if failed else 200)


def _can_author(ruleset: Ruleset, user: User) -> bool:
    """Whether this reviewer may sign as an author and has not yet."""
    if ruleset.status != RulesetStatus.IN_SIGN_OFF or user.role != Role.REVIEWER:
        return False
    return not ruleset.signatures.filter(signer=user).exists() and selectors.has_worked_on(ruleset, user)


def _withdraw_form(ruleset: Ruleset) -> type[WithdrawForm]:
    return WithdrawForm if ruleset.manifest is None else WithdrawFrozenForm


def _draft_changed(
    request: UserRequest, slug: str, ruleset: Ruleset, said: str, moved: _Moved = _Moved()
) -> HttpResponse:
    if request.htmx:
        return _draft_page(request, selectors.ruleset_get(slug, ruleset.number), moved=moved, said=said)
    messages.success(request, said)
    return redirect("ruleset-detail", slug=slug, number=ruleset.number)


def _ruleset_id(slug: str, number: int) -> int:
    return get_object_or_404(Ruleset.objects.only("pk"), task__slug=slug, number=number).pk


def _values(form: VersionForm) -> dict[str, Any]:
    """What a form of buttons and hidden fields sent. Raises InvalidInput: no person typed this wrong."""
    if not form.is_valid():
        raise InvalidInput(_("This form is incomplete. Reload the page and repeat."))
    return form.cleaned_data


@roles_required(Role.REVIEWER)
@require_POST
@vary_on_headers("HX-Request")
def item_add(request: UserRequest, slug: str, number: int) -> HttpResponse:
    values = _values(AddForm(request.POST))
    ruleset = services.ruleset_item_add(
        ruleset_id=_ruleset_id(slug, number),
        instruction_id=values["instruction"],
        editor=request.user,
        version=values["version"],
    )
    return _draft_changed(request, slug, ruleset, _("Added at the end."))


@roles_required(Role.REVIEWER)
@require_POST
@vary_on_headers("HX-Request")
def item_move(request: UserRequest, slug: str, number: int, item: int) -> HttpResponse:
    values = _values(MoveForm(request.POST))
    ruleset_id = _ruleset_id(slug, number)
    was = RulesetItem.objects.filter(ruleset=ruleset_id, pk=item).values_list("position", flat=True).first() or 0
    ruleset = services.ruleset_item_move(
        ruleset_id=ruleset_id,
        item_id=item,
        to=values["to"],
        editor=request.user,
        version=values["version"],
    )
    place = ruleset.items.get(pk=item).position
    said = _("Now at place %(place)s of %(count)s.") % {"place": place, "count": ruleset.items.count()}
    return _draft_changed(request, slug, ruleset, said, _Moved(item, place > was))


@roles_required(Role.REVIEWER)
@require_POST
@vary_on_headers("HX-Request")
def item_remove(request: UserRequest, slug: str, number: int, item: int) -> HttpResponse:
    ruleset = services.ruleset_item_remove(
        ruleset_id=_ruleset_id(slug, number),
        item_id=item,
        editor=request.user,
        version=_values(VersionForm(request.POST))["version"],
    )
    return _draft_changed(request, slug, ruleset, _("Removed from the draft. It stays approved."))


@roles_required(Role.REVIEWER)
@require_POST
@vary_on_headers("HX-Request")
def ruleset_refresh(request: UserRequest, slug: str, number: int) -> HttpResponse:
    version = _values(VersionForm(request.POST))["version"]
    ruleset = services.ruleset_refresh(ruleset_id=_ruleset_id(slug, number), editor=request.user, version=version)
    return _draft_changed(request, slug, ruleset, _("The draft now holds only what is approved."))


@roles_required(Role.REVIEWER)
@require_POST
def ruleset_freeze(request: UserRequest, slug: str, number: int) -> HttpResponse:
    version = _values(VersionForm(request.POST))["version"]
    services.ruleset_freeze(ruleset_id=_ruleset_id(slug, number), editor=request.user, version=version)
    messages.success(request, _("Frozen. It waits for signatures now."))
    return redirect("ruleset-detail", slug=slug, number=number)


@roles_required(Role.SIGNATORY, Role.REVIEWER)
@require_POST
def ruleset_sign_view(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """The task's policy says which of these roles sign; the service and the database hold to it."""
    ruleset = selectors.ruleset_get(slug, number)
    form = SignForm(request.POST, auto_id="sign-%s")
    if form.is_valid():
        try:
            signature = ruleset_sign(ruleset_id=ruleset.pk, signer=request.user, proof=form.proof(request), **form.said)
        except InvalidInput as refusal:
            form.add_error("password", str(refusal))
        else:
            messages.success(request, _signed_words(signature))
            return redirect("ruleset-detail", slug=slug, number=number)
    return _frozen_page(request, ruleset, sign_form=form)


@roles_required(Role.SIGNATORY, Role.REVIEWER)
@require_POST
def ruleset_rule_read(request: UserRequest, slug: str, number: int, rule: int) -> HttpResponse:
    """Open an instruction that has to be opened before signing; the page then shows what is to be seen of it."""
    ruleset_id = _ruleset_id(slug, number)
    instruction = get_object_or_404(Instruction.objects.only("pk"), task__slug=slug, number=rule)
    rule_read(ruleset_id=ruleset_id, instruction_id=instruction.pk, reader=request.user)
    return redirect(f"{reverse('ruleset-detail', args=[slug, number])}#rule-{rule}")


def _signed_words(signature: Signature) -> str:
    """Thanks, and whose turn it is."""
    if Ruleset.objects.get(pk=signature.ruleset_id).status == RulesetStatus.SIGNED:
        return _("Signed. That was the last signature: a signatory can make a release of it.")
    return _("Signed. It waits for another signature.")


@roles_required(Role.REVIEWER, Role.SIGNATORY)
@require_POST
def ruleset_withdraw_view(request: UserRequest, slug: str, number: int) -> HttpResponse:
    ruleset = selectors.ruleset_get(slug, number)
    form = _withdraw_form(ruleset)(request.POST, auto_id="withdraw-%s")
    if form.is_valid():
        try:
            proof = form.proof(request) if isinstance(form, WithdrawFrozenForm) else None
            ruleset_withdraw(ruleset_id=ruleset.pk, actor=request.user, reason=form.cleaned_data["reason"], proof=proof)
        except InvalidInput as refusal:
            form.add_error("password" if proof else "reason", str(refusal))
        else:
            messages.success(request, _("Withdrawn."))
            return redirect("ruleset-detail", slug=slug, number=number)
    if ruleset.manifest is None:
        raise InvalidInput(_("Say why you withdraw this ruleset."))
    return _frozen_page(request, ruleset, withdraw_form=form)


@roles_required(Role.SIGNATORY)
@require_POST
def ruleset_release(request: UserRequest, slug: str, number: int) -> HttpResponse:
    release = release_create(ruleset_id=_ruleset_id(slug, number), signatory=request.user)
    messages.success(request, _("Made release %(version)s. Publish it to staging next.") % {"version": release})
    return redirect("release-detail", slug=slug, version=release.version)


EXPORTERS = (Role.AUDITOR, Role.REVIEWER, Role.SIGNATORY)


def export_response(export: Export) -> StreamingHttpResponse:
    """A download, streamed; its content was read before."""
    response = StreamingHttpResponse(export.chunks, content_type=export.content_type)
    response["Content-Disposition"] = f'attachment; filename="{export.file_name}"'
    response["Cache-Control"] = "no-store"
    return response


def export_kind(kind: str) -> ExportKind:
    """Raises Http404 for anything else than a known kind."""
    try:
        return ExportKind(kind)
    except ValueError as error:
        raise Http404 from error


@roles_required(*EXPORTERS)
@require_GET
def ruleset_export_view(request: UserRequest, slug: str, number: int, kind: str) -> StreamingHttpResponse:
    ruleset = selectors.ruleset_get(slug, number)
    return export_response(ruleset_export(ruleset=ruleset, kind=export_kind(kind), actor=request.user))
