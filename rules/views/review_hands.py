"""Taking, keeping and handing over a card, and the text that is being typed on it."""

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.diff import diff_summary, risks_digest, risky_changes
from rules.forms.review import DraftForm
from rules.models import Instruction, Task
from rules.selectors import review as selectors
from rules.selectors.review_compare import shown_diff
from rules.selectors.review_hands import Hands, hands_of
from rules.services import claims, drafts
from rules.views.review_links import card_url, to_queue, view_of


@roles_required(Role.REVIEWER)
@require_POST
def review_next(request: UserRequest, slug: str) -> HttpResponse:
    """Take the first free instruction of the view, and open its card."""
    task = get_object_or_404(Task, slug=slug)
    view = view_of(request, task)
    number = claims.claim_next(task=task, view=view, reviewer=request.user)
    if number is None:
        messages.info(request, _("Nothing in this view is free: colleagues hold what is open, or it is theirs to do."))
        return to_queue(request, task, view)
    return redirect(card_url(task, number, view))


@roles_required(Role.REVIEWER)
@require_POST
def review_ping(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Say that one is on the card; `keep` also renews the claim, or takes the card if it is free. Answers with JSON."""
    instruction = selectors.instruction_get(slug, number)
    claims.presence_ping(instruction_id=instruction.pk, reviewer=request.user)
    if request.POST.get("keep") and _may_take_quietly(request, instruction):
        claims.claim_keep(instruction_id=instruction.pk, reviewer=request.user)
    hands = hands_of(instruction, request.user)
    return JsonResponse(
        {
            "mine": hands.is_mine,
            "seconds": hands.seconds,
            "held": hands_said(hands),
            "others": others_said(hands),
            "version": instruction.version,
        }
    )


def _may_take_quietly(request: UserRequest, instruction: Instruction) -> bool:
    """Looking takes a card, but not from the colleague it is named for, nor one's own edit from its second reader."""
    revision = instruction.current_revision
    is_own_edit = revision is not None and revision.author_id == request.user.pk
    assignment = getattr(instruction, "assignment", None)
    is_anothers = assignment is not None and assignment.person_id not in {None, request.user.pk}
    hands = hands_of(instruction, request.user)
    return instruction.is_open and (hands.is_mine or not (is_own_edit or is_anothers))


def hands_said(hands: Hands) -> str:
    """Who holds the card, in words; empty while nobody does."""
    if hands.holder is None or hands.until is None:
        return ""
    until = f"{hands.until:%H:%M} UTC"
    if hands.is_mine:
        return _("Yours until %(time)s") % {"time": until}
    return _("%(name)s is working on it, until %(time)s") % {"name": hands.holder, "time": until}


def others_said(hands: Hands) -> str:
    if not hands.others:
        return ""
    names = ", ".join(hands.others)
    return ngettext("%(names)s is here too", "%(names)s are here too", len(hands.others)) % {"names": names}


@roles_required(Role.REVIEWER)
@require_POST
def review_release(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Let the card go. Sent by the browser when it is left, and by a button."""
    instruction = selectors.instruction_get(slug, number)
    claims.claim_release(instruction_id=instruction.pk, reviewer=request.user)
    return to_queue(request, instruction.task, view_of(request, instruction.task))


@roles_required(Role.REVIEWER)
@require_POST
def review_take_over(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Take the card, from a colleague if need be, with the text that was typed in the meantime."""
    instruction = selectors.instruction_get(slug, number)
    form = DraftForm(request.POST)
    if form.is_valid() and form.cleaned_data["text"]:
        drafts.draft_keep(instruction_id=instruction.pk, reviewer=request.user, **form.cleaned_data)
    claims.claim_take_over(instruction_id=instruction.pk, reviewer=request.user)
    messages.success(request, _("Instruction %(number)s is in your hands.") % {"number": number})
    return redirect(card_url(instruction.task, number, view_of(request, instruction.task)))


@roles_required(Role.REVIEWER)
@require_POST
def review_draft(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Keep what is typed, and say what it changes: how many words, and which of the changes are dangerous.

    Asked by htmx while a person types; as a plain form it keeps the text and comes back to the card.
    """
    instruction = selectors.instruction_get(slug, number)
    form = DraftForm(request.POST)
    if not form.is_valid():
        raise InvalidInput(_("This text could not be kept. Copy it, reload the page and try again."))
    draft = drafts.draft_keep(instruction_id=instruction.pk, reviewer=request.user, **form.cleaned_data)
    if draft is not None and _may_take_quietly(request, instruction):
        claims.claim_keep(instruction_id=instruction.pk, reviewer=request.user)
    if not request.htmx:
        messages.success(request, _("Your text is kept. It is nobody's but yours until you save it."))
        return redirect(card_url(instruction.task, number, view_of(request, instruction.task)))
    current = instruction.current_revision.text if instruction.current_revision else ""
    typed = draft.text if draft else current
    risks = risky_changes(current, typed, instruction.task.labels)
    context = {
        "draft": draft,
        "risks": risks,
        "seen": risks_digest(risks),
        "summary": diff_summary(shown_diff(current, typed)) if draft else "",
    }
    return render(request, "rules/review_draft.html", context)


@roles_required(Role.REVIEWER)
@require_POST
def review_draft_discard(request: UserRequest, slug: str, number: int) -> HttpResponse:
    instruction = selectors.instruction_get(slug, number)
    drafts.draft_discard(instruction_id=instruction.pk, reviewer=request.user)
    # The tag lets the browser drop its own copy as well.
    messages.info(
        request, _("Your unsent text is gone."), extra_tags=f"instruction-{instruction.task.slug}-{instruction.number}"
    )
    return redirect(card_url(instruction.task, number, view_of(request, instruction.task)))
