"""What the journeys stand on: a review of rules as long as real ones, and ways to look at a page from outside."""

from collections.abc import Callable

from playwright.sync_api import Page

from pld_app.models import Domain, Role, User
from rules.models import EvidenceRole, Instruction, Task
from tests.factories import make_evidence, make_instruction, make_task, make_trace, make_user

# Sixty words, as the longest mined ones have.
LONG_RULE = (
    "If the receiving party may keep copies of the confidential information after the agreement has ended, and the "
    "clause neither names a date by which backup copies are purged nor binds the archive to the same duty of "
    "secrecy, then label Breach, unless a law, a court or a supervisory authority orders it to keep "
    "exactly those copies for longer."
)
CLAUSE = (
    "Upon termination the Recipient shall return or destroy all Confidential Information within thirty days, save "
    "that copies held in routine electronic backups may be retained until they are overwritten in the ordinary "
    "course of business, and the Recipient's counsel may keep one archival copy as evidence of what was disclosed."
)
RATIONALE = (
    "The clause lets backup copies live on without naming a date by which they are purged, and says nothing of the "
    "duty of secrecy that should outlast the agreement for them."
)


def reviewers() -> tuple[User, User]:
    """Lena of legal and Finn of finance."""
    return make_user("lena", Role.REVIEWER, Domain.LEGAL), make_user("finn", Role.REVIEWER, Domain.FINANCE)


def rule_with_evidence(task: Task, text: str = LONG_RULE, each: int = 3) -> Instruction:
    """A rule with `each` long traces on both sides, all asking the same question."""
    rule = make_instruction(task, text, label="Breach", support=14, contradictions=9)
    for role, label in ((EvidenceRole.SUPPORTING, "Breach"), (EvidenceRole.CONTRADICTING, "Compliant")):
        for number in range(each):
            clause = f"Section {number + 1} of the {label.lower()} kind. {CLAUSE}"
            given = {"clause": clause, "question": "May copies be kept after the end?"}
            make_evidence(rule, make_trace(task, label=label, input=given, rationale=RATIONALE), role)
    return rule


def review_of(count: int) -> Task:
    """A task with this many open rules, numbered from 1, the first of them with evidence."""
    task = make_task()
    rule_with_evidence(task)
    for number in range(2, count + 1):
        # A topic each: within one the order is every reviewer's own.
        text = f"If clause {number} lets copies be kept, then label Compliant."
        make_instruction(task, text, topic=f"copies {number:02d}")
    return task


def overflow_px(page: Page) -> int:
    """By how many pixels the page is wider than its window; then a reader has to scroll sideways."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def eventually(page: Page, condition: Callable[[], bool], what: str) -> None:
    """Wait for what the server does after a key or a click, at most 5 s."""
    for _turn in range(100):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"within 5 s it did not happen: {what}")
