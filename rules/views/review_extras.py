"""What stands around the decision on a card: the closed drawer, comments, the blind first question, pauses.

The card calls these at fixed places and knows nothing else of them. Each may stay silent (empty, None, False).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from pld_app.access import UserRequest
from pld_app.models import Role, User
from rules.models import DecisionKind, Instruction, ReviewPolicy, ReviewSession, Task
from rules.selectors import review as selectors
from rules.selectors import review_guard as guard
from rules.selectors.card_glance import Glance
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_policy import policy_of
from rules.selectors.training import is_trained, untrained_words
from rules.services import attention
from rules.services.notices import notice_acknowledge, notice_is_due
from rules.views.comments import comment_context
from rules.views.review_similar import back_sent

_JUDGING = frozenset({DecisionKind.APPROVE, DecisionKind.REJECT})
_NUDGE_ITEMS = 60
_NUDGE_AFTER = timedelta(minutes=50)
_STOP_AFTER = timedelta(minutes=120)
_EVIDENCE_SHOWN = 3


def wording_withheld(request: UserRequest, instruction: Instruction) -> bool:
    """Whether this person must answer on the evidence first: the card then holds no word of the rule anywhere.

    In place of the rule it shows `rules/review_blind.html`, and offers no decision.
    """
    return guard.wording_withheld_from(instruction, request.user)


def card_extras(request: UserRequest, instruction: Instruction, there_is: Glance) -> Mapping[str, object]:
    """Context for `rules/review_insight.html`, `rules/review_comments.html` and `rules/review_blind.html`."""
    user = request.user
    is_reviewer = user.role == Role.REVIEWER
    is_judging = is_reviewer and instruction.is_open
    has_judged = is_judging and there_is.judgements and guard.has_judged(instruction, user)
    is_closed = is_judging and not there_is.insight
    figures_shown = has_judged or (not is_closed and guard.figures_open(instruction, user))
    # Only the person's own opening of the card starts the clock: an answer to a form is the same look.
    if is_judging and request.method == "GET" and not _is_prefetch(request):
        attention.look_open(instruction=instruction, user=user)
        if has_judged:
            # Shown from now on: a judgement taken back and made anew comes after them.
            attention.insight_open(instruction=instruction, user=user)
    return {
        "figures_shown": figures_shown,
        "figures": guard.figures_of(instruction) if figures_shown else None,
        "standing": guard.standing_of(instruction, user) if there_is.doubles else None,
        "review_pause": guard.pause_of(instruction.task, user) if is_reviewer and there_is.pause else None,
        **comment_context(request, instruction, figures_shown=figures_shown, there_are=there_is.comments),
        "untrained": untrained(instruction.task, user, instruction.domain) if instruction.is_open else "",
    }


def untrained(task: Task, user: User, domain: str) -> str:
    """What a reviewer without the training that the task asks for is told; empty where nothing is missing."""
    lacks = user.role == Role.REVIEWER and policy_of(task).training_required and not is_trained(user, domain)
    return untrained_words(domain) if lacks else ""


def _is_prefetch(request: UserRequest) -> bool:
    return "prefetch" in request.headers.get("Sec-Purpose", "")


def queue_extras(request: UserRequest, task: Any, rows: Any) -> Mapping[str, object]:
    """Context for the queue: what is withheld in its rows, a pause, and whether the notice on habit is due."""
    is_reviewer = request.user.role == Role.REVIEWER
    return {
        "withheld": guard.withheld_among(task, [row.instruction for row in rows], request.user),
        "review_pause": guard.pause_of(task, request.user) if is_reviewer else None,
        "notice_due": is_reviewer and notice_is_due(request.user),
        "untrained": untrained(task, request.user, request.user.domain),
    }


def pause_before(
    request: UserRequest, instruction: Instruction, view: ReviewFilter, *, kind: DecisionKind, sent: Mapping[str, Any]
) -> HttpResponse | None:
    """A page in place of the decision that was sent (such as "read this one?"); None lets it go on.

    The page sends the same form again with one field more, so that nothing typed is lost.
    """
    if wording_withheld(request, instruction) and kind != DecisionKind.DEFER:
        messages.info(request, _("Say first what the evidence shows; the wording appears then."))
        card = reverse("instruction-detail", args=[instruction.task.slug, instruction.number])
        return redirect(f"{card}?{view.query}")
    policy = policy_of(instruction.task)
    notice = _notice_before(request, instruction, view, policy, sent)
    if notice is not None or kind not in _JUDGING:
        return notice
    if sent["version"] != instruction.version or not instruction.is_open:
        return None
    revision = instruction.current_revision
    assert revision is not None
    asks_sure = False
    if "sure" not in request.POST:
        look = attention.look_of(instruction, request.user)
        pace = attention.pace_of(look=look, revision=revision, user=request.user, policy=policy)
        # Not opened at all is asked about as well, where a pace is asked for.
        asks_sure = pace.is_fast or (pace.seconds is None and pace.fast_under is not None)
    place = _convincing(request.POST.get("convinced", ""))
    drawn = guard.evidence_is_asked(instruction, request.user, policy)
    asks_why = kind == DecisionKind.APPROVE and drawn and place is None
    if asks_sure or asks_why:
        return _step(request, instruction, view, kind=kind, sent=sent, asks_sure=asks_sure, asks_why=asks_why)
    if kind == DecisionKind.APPROVE and drawn and place is not None:
        attention.convinced_by(instruction=instruction, user=request.user, place=place)
    return None


def _notice_before(
    request: UserRequest, instruction: Instruction, view: ReviewFilter, policy: ReviewPolicy, sent: Mapping[str, Any]
) -> HttpResponse | None:
    """The notice on habit before the first decision of a quarter, with the decision to be sent again beneath it."""
    if not policy.notice_first or not notice_is_due(request.user):
        return None
    if "notice" in request.POST:
        notice_acknowledge(user=request.user)
        return None
    context = {"task": instruction.task, "instruction": instruction, "view": view, "url": request.path}
    context["sent"] = {name: "" if value is None else value for name, value in sent.items()}
    template = "rules/review_notice_step.html#step" if request.htmx else "rules/review_notice_step.html"
    response = render(request, template, context)
    response["HX-Push-Url"] = "false"
    return response


def _convincing(sent: str) -> int | None:
    return int(sent) if sent in {"0", "1", "2", "3"} else None


def _step(
    request: UserRequest,
    instruction: Instruction,
    view: ReviewFilter,
    *,
    kind: DecisionKind,
    sent: Mapping[str, Any],
    asks_sure: bool,
    asks_why: bool,
) -> HttpResponse:
    names = {DecisionKind.APPROVE: "instruction-approve", DecisionKind.REJECT: "instruction-reject"}
    card = selectors.card_of(instruction, request.user)
    context = {
        "task": instruction.task,
        "instruction": instruction,
        "view": view,
        "card": card,
        "evidence": card.supporting[:_EVIDENCE_SHOWN],
        "url": reverse(names[kind], args=[instruction.task.slug, instruction.number]),
        "verb": kind.value,
        "sent": {name: sent[name] for name in ("version", "reason", "note")} | back_sent(request),
        "asks_sure": asks_sure,
        "asks_why": asks_why,
        "was_sure": asks_sure or "sure" in request.POST,
    }
    template = "rules/review_step.html#step" if request.htmx else "rules/review_step.html"
    response = render(request, template, context)
    # The address stays that of the card: the form's own takes no GET.
    response["HX-Push-Url"] = "false"
    return response


def decided(request: UserRequest, instruction: Instruction, *, kind: DecisionKind, done: object) -> None:
    """After a decision is on record, in a transaction of its own; it may not undo or refuse it."""
    session = ReviewSession.objects.filter(user=request.user, task=instruction.task, ended_at__isnull=True).first()
    if session is None:
        return
    length = timezone.now() - session.started_at
    if length >= _STOP_AFTER and session.items % 10 == 0:
        messages.warning(request, _("You have been deciding for two hours. Stop here and go on another time."))
    elif session.items % _NUDGE_ITEMS == 0 or (length >= _NUDGE_AFTER and session.items % 20 == 0):
        minutes = round(length.total_seconds() / 60)
        said = _("%(items)d items in %(minutes)d minutes: a short break keeps the next ones as careful.")
        messages.info(request, said % {"items": session.items, "minutes": minutes})


def said_of(instruction: Instruction, kind: DecisionKind, done: object) -> str:
    """What to tell a reviewer whose judgement did not decide alone; empty where it did."""
    if kind not in _JUDGING or not isinstance(done, Instruction) or not done.is_open:
        return ""
    if done.waiting == "disputed":
        return _("Another reviewer decided otherwise on #%(number)s; a third settles it.") % {"number": done.number}
    return _("Kept for #%(number)s: another reviewer decides on it too.") % {"number": done.number}
