"""The review that `./dev demo` finds begun: people of the demo decide, each act by the service a page would call."""

from django.db.models import QuerySet

from pld_app.errors import InvalidInput
from pld_app.models import User
from rules.models import Instruction, JudgementContext, ReasonCode, Task
from rules.selectors.review_policy import policy_of
from rules.services import review
from rules.services.double_review import double_bases
from rules.services.notices import notice_acknowledge
from rules.services.review_policy import FIELDS, policy_change
from rules.services.seeds import seeds_make

CHECK_ITEMS = 6
PAIRS = 12
SINGLE = 6
# More pairs than the preset draws, so that agreement has enough to be said of.
DOUBLE_PERCENT = 40


def demo_review(task: Task, admin: User) -> None:
    """Begin the review of a mined task, once: whoever has decided anything since is left alone.

    Some pairs agree, one waits for a third, one card is deferred and one sent back, and check items are answered. Most
    cards are left for whoever opens the demo. No times are made up: nobody has opened a card, so none are known.
    """
    if JudgementContext.objects.filter(instruction__task=task).exists():
        return
    lena, finn, theo = (User.objects.get(username=name) for name in ("lena", "finn", "theo"))
    for person in (lena, finn, theo):
        notice_acknowledge(user=person)
    _draw_more(task, admin)
    drawn, alone = _divided(task)
    for place, row in enumerate(alone[:SINGLE]):
        _decide(row, lena, approves=place % 3 != 2)
    for place, row in enumerate(drawn[:PAIRS]):
        first, second = (lena, finn) if place % 2 else (finn, lena)
        _decide(row, first, approves=place % 4 != 3)
        # The first pair disagrees and waits; the second disagreed, and the third person settled it.
        _decide(row, second, approves=(place % 4 != 3) != (place < 2))
        if place == 1:
            _decide(row, theo, approves=True)
    _set_aside(drawn, finn, theo)
    _check_items(task, admin, lena, finn)


def _draw_more(task: Task, admin: User) -> None:
    present = policy_of(task)
    if present.double_percent < DOUBLE_PERCENT:
        values = {name: getattr(present, name) for name in FIELDS} | {"double_percent": DOUBLE_PERCENT}
        policy_change(task=task, admin=admin, version=present.version, values=values)


def _open(task: Task) -> QuerySet[Instruction]:
    rows = Instruction.objects.filter(task=task, is_seeded=False, status="proposed")
    return rows.select_related("task", "current_revision").order_by("number")


def _divided(task: Task) -> tuple[list[Instruction], list[Instruction]]:
    """Those that two people decide, and those that one does."""
    rows = [(row, bool(double_bases(row))) for row in _open(task)]
    return [row for row, is_double in rows if is_double], [row for row, is_double in rows if not is_double]


def _decide(row: Instruction, reviewer: User, *, approves: bool) -> None:
    row.refresh_from_db()
    if approves:
        review.instruction_approve(instruction_id=row.pk, reviewer=reviewer, version=row.version)
        return
    review.instruction_reject(
        instruction_id=row.pk, reviewer=reviewer, version=row.version, reason=ReasonCode.UNSUPPORTED
    )


def _set_aside(drawn: list[Instruction], finn: User, theo: User) -> None:
    """One deferred, one sent back, and one that two approved and a third reopened: what a history looks like."""
    deferred, back, reopened = drawn[PAIRS], drawn[PAIRS + 1], drawn[2]
    review.instruction_defer(
        instruction_id=deferred.pk, reviewer=finn, version=deferred.version, note="Ask the treaty desk first."
    )
    review.instruction_send_back(
        instruction_id=back.pk, reviewer=finn, version=back.version, reason=ReasonCode.SCOPE, note="Which copies?"
    )
    reopened.refresh_from_db()
    review.instruction_reopen(
        instruction_id=reopened.pk, reviewer=theo, version=reopened.version, note="A trace says otherwise; look again."
    )


def _check_items(task: Task, admin: User, lena: User, finn: User) -> None:
    """Lena misses one of them, Finn none."""
    try:
        seeds = seeds_make(task=task, admin=admin, count=CHECK_ITEMS)
    except InvalidInput:
        return  # these texts lend themselves to none
    for place, seed in enumerate(seeds):
        for person, misses in ((lena, place == 0), (finn, False)):
            _decide(seed.instruction, person, approves=(seed.expected == "approve") != misses)
