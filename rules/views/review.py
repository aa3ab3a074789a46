"""The review queue and the card; each decision is a plain form that leads to the next card."""

import uuid
from collections.abc import Callable

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_POST
from django.views.decorators.vary import vary_on_headers

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import Role
from rules.diff import Risk, risks_digest, risky_changes
from rules.forms.review import DecisionForm, QueueFilterForm
from rules.hooks import instruction_cases
from rules.models import Audience, DecisionKind, Instruction, ReasonCode, SavedView, Task
from rules.selectors import review as selectors
from rules.selectors.card_glance import glance_of
from rules.selectors.findings import ChangeView, change_of, conflicts_of
from rules.selectors.proposals import ProposalView, proposals_of
from rules.selectors.review_filter import ReviewFilter, queue_counts, second_checks_elsewhere, topics_of
from rules.selectors.review_hands import IN_NO_HANDS, draft_of, hands_of
from rules.selectors.review_order import place_of
from rules.selectors.review_preference import preference_of
from rules.selectors.saved_views import default_view, query_of, saved_views_for
from rules.selectors.tags import tags_of_task
from rules.services import claims
from rules.services import review as services
from rules.services.review_input import plain_newlines
from rules.views import review_extras, review_similar
from rules.views.review_hands import hands_said, others_said
from rules.views.review_links import card_url, to_queue, view_of
from rules.views.review_refused import Refused, show_conflict, typed_back


@roles_required()
@require_GET
def review_queue(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    saved = None if request.GET else default_view(task)
    return queue_response(request, task, query_of(saved) if saved else request.GET.dict(), saved=saved)


def queue_response(
    request: UserRequest, task: Task, query: dict[str, str], *, saved: SavedView | None = None
) -> HttpResponse:
    """The queue narrowed by `query`; `saved` is the view it comes from, if any."""
    tags = tags_of_task(task)
    form = QueueFilterForm(query, task=task, user=request.user, topics=topics_of(task), tags=tags)
    view = form.to_filter()
    page, rows = selectors.queue_page(task, view, request.user, request.GET.get("page"))
    counts = queue_counts(task, view, request.user)
    elsewhere = second_checks_elsewhere(task, view, request.user) if request.user.role == Role.REVIEWER else 0
    context: dict[str, object] = {
        "task": task,
        "form": form,
        "view": view,
        "page": page,
        "rows": rows,
        "saved": saved,
        "saved_views": list(saved_views_for(task, request.user)),
        "audiences": Audience.choices,
        "counts": counts,
        "tags": tags,
        "may_bulk": request.user.role in {Role.REVIEWER, Role.ADMIN},
    }
    context |= {"elsewhere": elsewhere, "keys": preference_of(request.user).keys}
    context |= review_extras.queue_extras(request, task, rows)
    return render(request, "rules/review_queue.html", context)


@roles_required()
@require_GET
@vary_on_headers("HX-Request")
def instruction_detail(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _card(request, selectors.instruction_get(slug, number))


@roles_required()
@require_GET
def instruction_traces(request: UserRequest, slug: str, number: int) -> HttpResponse:
    instruction = selectors.instruction_get(slug, number)
    withheld = review_extras.wording_withheld(request, instruction)
    page, traces = selectors.cluster_traces(instruction, request.GET.get("page"), is_withheld=withheld)
    context = {"task": instruction.task, "instruction": instruction, "page": page, "traces": traces}
    return render(request, "rules/instruction_traces.html", context | {"view": view_of(request, instruction.task)})


@roles_required(Role.REVIEWER)
@require_POST
def instruction_approve(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.APPROVE, services.instruction_approve, "note")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_edit(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.EDIT, services.instruction_edit, "text", "note", "seen")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_reject(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.REJECT, services.instruction_reject, "reason", "note")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_defer(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.DEFER, services.instruction_defer, "note")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_send_back(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.SEND_BACK, services.instruction_send_back, "reason", "note")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_reopen(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.REOPEN, services.instruction_reopen, "note")


@roles_required(Role.REVIEWER)
@require_POST
def instruction_undo(request: UserRequest, slug: str, number: int) -> HttpResponse:
    return _decide(request, slug, number, DecisionKind.REOPEN, services.instruction_undo)


def _decide(
    request: UserRequest, slug: str, number: int, kind: DecisionKind, act: Callable[..., object], *fields: str
) -> HttpResponse:
    """Run one action on the named fields and go on; a refusal shows what happened with everything that was typed."""
    instruction = selectors.instruction_get(slug, number)
    view = view_of(request, instruction.task)
    form = DecisionForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(str(next(iter(form.errors.values()))[0]))
    sent = form.cleaned_data
    said = {name: sent[name] for name in fields}
    pause = review_extras.pause_before(request, instruction, view, kind=kind, sent=sent)
    if pause is not None:
        return pause
    try:
        done = act(instruction_id=instruction.pk, reviewer=request.user, version=sent["version"], **said)
    except WrongState as refusal:
        return show_conflict(request, instruction, view, kind=kind, sent=sent, refusal=refusal)
    except InvalidInput as refusal:
        return _card(request, instruction, typed_back(kind, sent, refusal))
    review_extras.decided(request, instruction, kind=kind, done=done)
    return _go_on(request, instruction, view, kind, done)


def _risks(instruction: Instruction, text: str) -> list[Risk]:
    current = instruction.current_revision.text if instruction.current_revision else ""
    return risky_changes(current, plain_newlines(text), instruction.task.labels)


def _card(request: UserRequest, instruction: Instruction, refused: Refused | None = None) -> HttpResponse:
    view = view_of(request, instruction.task)
    there_is = glance_of(instruction, request.user)
    conflicts, conflict_count = conflicts_of(instruction, request.user) if there_is.conflicts else ([], 0)
    change = change_of(instruction, request.user) if there_is.matches else None
    proposals = proposals_of(instruction) if there_is.proposals else []
    withheld = review_extras.wording_withheld(request, instruction)
    is_reviewer = request.user.role == Role.REVIEWER
    draft = draft_of(instruction, request.user) if is_reviewer and there_is.draft else None
    hands = hands_of(instruction, request.user) if there_is.claims or there_is.others else IN_NO_HANDS
    preference = preference_of(request.user)
    typed = refused.text if refused and refused.kind == DecisionKind.EDIT else draft.text if draft else ""
    risks = _risks(instruction, typed) if typed else []
    extras = review_extras.card_extras(request, instruction, there_is)
    context: dict[str, object] = {
        "card": selectors.card_of(
            instruction,
            request.user,
            is_withheld=withheld,
            figures_shown=bool(extras["figures_shown"]),
            is_alone=not there_is.similar,
        ),
        "withheld": withheld,
        "conflicts": conflicts,
        "conflict_count": conflict_count,
        "change": change,
        "proposals": proposals,
        "cases": instruction_cases(instruction) if proposals or "cases" in request.GET else [],
        "taken": _taken(request, change, proposals),
        "task": instruction.task,
        "instruction": instruction,
        "view": view,
        "place": place_of(instruction, view, request.user),
        "may_decide": is_reviewer,
        "may_act": is_reviewer and not hands.is_held_by_another,
        "reasons": ReasonCode.choices,
        "refused": refused,
        "risks": risks,
        "seen": risks_digest(risks),
        "draft": draft,
        "hands": hands,
        "held": hands_said(hands),
        "others": others_said(hands),
        "keys": preference.keys,
        "font": preference.font,
        # One name for the menus of this rendering alone: htmx puts the new card in before it takes the old one out, and
        # a browser shuts a menu that arrives open while one of the same name is open already.
        "menus": uuid.uuid4().hex[:8],
        **extras,
        **review_similar.similar_extras(request, instruction),
    }
    template = "rules/instruction_detail.html#card" if request.htmx else "rules/instruction_detail.html"
    response = render(request, template, context, status=422 if refused else 200)
    if refused:
        # The address stays that of the card: the form's own takes no GET.
        response["HX-Push-Url"] = "false"
    return response


def _taken(request: UserRequest, change: ChangeView | None, proposals: list[ProposalView]) -> str:
    """The proposed text the person asked for in the edit box: of a mining run, or "p" and its key of a loop."""
    wanted = request.GET.get("take", "")
    if change is not None and wanted == str(change.match.pk):
        return change.match.proposed_text
    return next((one.proposal.text for one in proposals if wanted == f"p{one.proposal.pk}"), "")


_SAID = {
    DecisionKind.APPROVE: gettext_lazy("Approved #%(number)s."),
    DecisionKind.EDIT: gettext_lazy("Edited #%(number)s; a second reviewer approves it."),
    DecisionKind.REJECT: gettext_lazy("Rejected #%(number)s."),
    DecisionKind.DEFER: gettext_lazy("Deferred #%(number)s."),
    DecisionKind.SEND_BACK: gettext_lazy("Sent back #%(number)s."),
    DecisionKind.REOPEN: gettext_lazy("#%(number)s is in review again."),
}


def _go_on(
    request: UserRequest, instruction: Instruction, view: ReviewFilter, kind: DecisionKind, done: object
) -> HttpResponse:
    """To the next free card of the same view, which is taken in the same step; after an undo, to this card again."""
    said = [review_extras.said_of(instruction, kind, done) or str(_SAID[kind]) % {"number": instruction.number}]
    task = instruction.task
    if isinstance(done, services.Reopened):
        claims.claim_keep(instruction_id=instruction.pk, reviewer=request.user)
        return _redirect(request, card_url(task, instruction.number, view), said + _withdrawn(done.withdrawn))
    clear = f"instruction-{instruction.task.slug}-{instruction.number}" if kind == DecisionKind.EDIT else ""
    back = review_similar.card_after(request, instruction, view, kind)
    if back is not None:
        return _redirect(request, back, said, clear)
    number = claims.claim_next(task=task, view=view, reviewer=request.user, behind=instruction)
    if number is None:
        nothing = _("Nothing is left for you to decide in this view.")
        messages.success(request, " ".join([*said, nothing]), extra_tags=clear)
        return to_queue(request, task, view)
    return _redirect(request, card_url(task, number, view), said, clear)


def _withdrawn(numbers: tuple[int, ...]) -> list[str]:
    if not numbers:
        return []
    message = ngettext("This withdrew ruleset %(numbers)s.", "This withdrew rulesets %(numbers)s.", len(numbers))
    return [message % {"numbers": ", ".join(str(number) for number in numbers)}]


def _redirect(request: UserRequest, url: str, said: list[str], clear: str = "") -> HttpResponse:
    # The tag names the browser's kept draft that is now on record; the next page lets it go.
    messages.success(request, " ".join(said), extra_tags=clear)
    return redirect(url)
