"""What a reviewer sees when a decision was refused: what happened, and everything they typed."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render

from pld_app.access import UserRequest
from pld_app.errors import InvalidInput, Message, WrongState
from rules.diff import risks_digest, risky_changes
from rules.hidden_text import reveal, without_hidden
from rules.models import DecisionKind, Instruction, ReasonCode
from rules.selectors import review as selectors
from rules.selectors.review_compare import shown_diff
from rules.selectors.review_filter import ReviewFilter
from rules.services.claims import Held
from rules.services.review_input import HiddenCharacters, plain_newlines


@dataclass(frozen=True, slots=True)
class Refused:
    """A refused input, to be shown in the form it came from."""

    kind: DecisionKind
    message: Message
    text: str
    note: str
    reason: str


def typed_back(kind: DecisionKind, sent: dict[str, Any], refusal: InvalidInput) -> Refused:
    """Hand the input back. Invisible characters are taken out: nobody could find them to do it by hand."""
    clean = without_hidden if isinstance(refusal, HiddenCharacters) else str
    text, note = plain_newlines(sent["text"]), plain_newlines(sent["note"])
    return Refused(kind, refusal.user_message, clean(text), clean(note), sent["reason"])


def show_conflict(
    request: UserRequest,
    instruction: Instruction,
    view: ReviewFilter,
    *,
    kind: DecisionKind,
    sent: dict[str, Any],
    refusal: WrongState,
) -> HttpResponse:
    """Answer 409: who did what since the page was opened, the text as it is now, and the typed text against it."""
    # Read again: the row in hand is from before the other's change.
    instruction = selectors.instruction_get(instruction.task.slug, instruction.number)
    text = plain_newlines(sent["text"])
    current = instruction.current_revision.text if instruction.current_revision else ""
    base = _text_of_revision(instruction, sent["base"])
    risks = risky_changes(current, text, instruction.task.labels) if text else []
    context = {
        "since": _what_happened(instruction, sent["version"]),
        "view": view,
        "task": instruction.task,
        "instruction": instruction,
        "message": refusal.user_message,
        "tried": kind,
        "reason": ReasonCode(sent["reason"]).label if sent["reason"] in ReasonCode.values else "",
        "note": sent["note"],
        "text": text,
        "current": reveal(current),
        "pairs": shown_diff(current, text) if text and text != current else [],
        "theirs": shown_diff(base, current) if base and base != current else [],
        "yours": shown_diff(base, text) if base and text and base not in {current, text} else [],
        "base": reveal(base),
        "base_number": sent["base"],
        "revision": instruction.current_revision.number if instruction.current_revision else 1,
        "risks": risks,
        "seen": risks_digest(risks),
        "is_held": isinstance(refusal, Held),
    }
    template = "rules/review_conflict.html#conflict" if request.htmx else "rules/review_conflict.html"
    response = render(request, template, context, status=refusal.status)
    # The address stays that of the card: the form's own takes no GET.
    response["HX-Push-Url"] = "false"
    return response


def _text_of_revision(instruction: Instruction, number: int | None) -> str:
    """The text the person had before them when they began, empty where the form does not say."""
    found = instruction.revisions.filter(number=number).first() if number else None
    return found.text if found else ""


def _what_happened(instruction: Instruction, version: int) -> list[selectors.TimelineEntry]:
    return selectors.timeline_of(instruction, after_version=version) or selectors.timeline_of(instruction)[:1]
