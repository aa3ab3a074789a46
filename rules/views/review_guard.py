"""The small forms of a card: opening the figures, judging the evidence first, the time in view; and the opinions."""

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from pld_app.access import UserRequest, roles_required
from pld_app.errors import InvalidInput
from pld_app.models import Role
from rules.models import Instruction, Task
from rules.selectors import review as selectors
from rules.selectors import review_guard as guard
from rules.selectors.review_preference import preference_of
from rules.services import attention
from rules.services.notices import notice_acknowledge
from rules.views.comments import comment_context
from rules.views.review_links import card_url, view_of


@roles_required(Role.REVIEWER)
@require_POST
def instruction_insight(request: UserRequest, slug: str, number: int) -> HttpResponse:
    instruction = selectors.instruction_get(slug, number)
    attention.insight_open(instruction=instruction, user=request.user)
    if not request.htmx:
        return redirect(f"{_card_url(request, instruction)}#figures")
    context = {
        "task": instruction.task,
        "instruction": instruction,
        "figures": guard.figures_of(instruction),
        "standing": guard.standing_of(instruction, request.user),
        "view": view_of(request, instruction.task),
        "keys": preference_of(request.user).keys,
        "out_of_band": True,
        **comment_context(request, instruction, figures_shown=True),
    }
    return render(request, "rules/review_insight.html", context)


@roles_required(Role.REVIEWER)
@require_POST
def instruction_evidence(request: UserRequest, slug: str, number: int) -> HttpResponse:
    instruction = selectors.instruction_get(slug, number)
    answer = request.POST.get("supports")
    if answer not in {"yes", "no"}:
        raise InvalidInput(_("Answer yes or no: does the evidence support a rule here?"))
    attention.evidence_judge(instruction=instruction, user=request.user, supports=answer == "yes")
    return redirect(_card_url(request, instruction))


@roles_required(Role.REVIEWER)
@require_POST
def instruction_visible(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """What a browser says of the time a card was in view, when the card leaves it."""
    sent = request.POST.get("ms", "")
    if not (sent.isascii() and sent.isdigit() and len(sent) < 9):
        raise InvalidInput(_("A time in view is a number of milliseconds."))
    attention.visible_add(
        instruction=selectors.instruction_get(slug, number), user=request.user, milliseconds=int(sent)
    )
    return HttpResponse(status=204)


@roles_required()
@require_GET
def instruction_opinions(request: UserRequest, slug: str, number: int) -> HttpResponse:
    """Both opinions side by side, once nothing is blind any more; the third decides on the card."""
    instruction = selectors.instruction_get(slug, number)
    standing = guard.standing_of(instruction, request.user)
    context = {
        "task": instruction.task,
        "instruction": instruction,
        "standing": standing,
        "card": selectors.card_of(instruction, request.user),
        "may_settle": request.user.role == Role.REVIEWER and standing is not None and standing.own is None,
    }
    return render(request, "rules/instruction_opinions.html", context)


@roles_required(Role.REVIEWER)
@require_POST
def bias_notice(request: UserRequest, slug: str) -> HttpResponse:
    task = get_object_or_404(Task, slug=slug)
    notice_acknowledge(user=request.user)
    return redirect("review-queue", slug=task.slug)


def _card_url(request: UserRequest, instruction: Instruction) -> str:
    return card_url(instruction.task, instruction.number, view_of(request, instruction.task))
