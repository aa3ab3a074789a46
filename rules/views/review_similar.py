"""What a reviewer does about two like rules: keep both, reject one as a duplicate, or word one that says both."""

from collections.abc import Mapping

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.hidden_text import Segment, reveal
from rules.models import DecisionKind, Instruction
from rules.selectors import review as selectors
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_guard import wording_withheld_from
from rules.services import pairs
from rules.views.review_links import card_url, view_of


def similar_extras(request: UserRequest, instruction: Instruction) -> Mapping[str, object]:
    """Context of the card: `merge`, the rule beside the edit box, and `offer`, the one to reject after merging."""
    asked = request.POST.get("merge") or request.GET.get("merge", "")
    merge = _other(request, instruction, asked)
    text: list[Segment] = reveal(merge.current_revision.text) if merge and merge.current_revision else []
    return {
        "merge": merge,
        "merge_text": text,
        "offer": _other(request, instruction, request.GET.get("offer", "")),
    }


def _other(request: UserRequest, instruction: Instruction, number: str) -> Instruction | None:
    """Another open instruction of the task whose wording this reviewer may read; None for anything else."""
    if not number.isascii() or not number.isdigit() or len(number) > 9 or request.user.role != Role.REVIEWER:
        return None
    rows = Instruction.objects.filter(task=instruction.task_id, number=int(number)).exclude(pk=instruction.pk)
    found = rows.awaiting_review().select_related("task", "current_revision").first()
    return None if found is None or wording_withheld_from(found, request.user) else found


def back_sent(request: UserRequest) -> dict[str, str]:
    """The card a decision leads back to, as its form says; empty where it says nothing."""
    back = request.POST.get("back", "")
    return {"back": back} if back.isascii() and back.isdigit() and len(back) < 10 else {}


def card_after(request: UserRequest, instruction: Instruction, view: ReviewFilter, kind: DecisionKind) -> str | None:
    """Where a decision on one of two like rules leads: back to the card it began on, or to the offer after merging."""
    back = back_sent(request)
    if back:
        return card_url(instruction.task, int(back["back"]), view)
    merge = request.POST.get("merge", "")
    if kind == DecisionKind.EDIT and _other(request, instruction, merge) is not None:
        return f"{card_url(instruction.task, instruction.number, view)}&offer={merge}"
    return None


@roles_required(Role.REVIEWER)
@require_POST
def pair_keep(request: UserRequest, slug: str, number: int, other: int) -> HttpResponse:
    """Say that both are needed; the form carries the versions of both that were shown."""
    here, beside = selectors.instruction_get(slug, number), selectors.instruction_get(slug, other)
    versions = [request.POST.get(name, "") for name in ("version", "other_version")]
    if not all(one.isascii() and one.isdigit() and len(one) < 10 for one in versions):
        raise InvalidInput(_("This form does not say which texts it is about. Go back and send it again."))
    pairs.pair_keep(
        instruction_id=here.pk,
        other_id=beside.pk,
        reviewer=request.user,
        version=int(versions[0]),
        other_version=int(versions[1]),
    )
    messages.success(request, _("#%(one)d and #%(other)d are both kept.") % {"one": number, "other": other})
    return redirect(card_url(here.task, number, view_of(request, here.task)))
