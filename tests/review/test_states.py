"""Any sequence of decisions: a small model of the rules and the database always agree."""

from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pld_app.errors import NotAllowed
from pld_app.models import Domain, Role, User
from rules.exceptions import InvalidTransition, Stale
from rules.models import Instruction, Task
from tests import factories
from tests.review.conftest import RULE, approve, defer, edit, reject, reopen, send_back, undo

WHO = st.sampled_from([0, 1, 2])
_texts = count(1)


@dataclass
class Model:
    """What should be true of the one instruction, in plain words."""

    status: str = "proposed"
    waiting: str = ""
    author: int | None = None
    version: int = 1
    revisions: int = 1
    # Who can undo, and to which wait; None when nothing can be undone.
    undoable: tuple[int, str] | None = None
    undoes_edit: bool = False

    @property
    def is_open(self) -> bool:
        return self.status in {"proposed", "in_review"}

    def moved(self, status: str, waiting: str, undoable: tuple[int, str] | None) -> None:
        self.status, self.waiting, self.undoable, self.undoes_edit = status, waiting, undoable, False
        self.version += 1


class ReviewMachine(RuleBasedStateMachine):
    people: list[User]
    task: Task

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.instruction: Instruction = factories.make_instruction(self.task, RULE)

    def attempt(self, call: Any, who: int, refused: type[Exception] | None, **more: Any) -> bool:
        """Do it, and check that it is refused exactly when the model says so."""
        if refused is None:
            call(self.instruction, self.people[who], **more)
            return True
        with pytest.raises(refused):
            call(self.instruction, self.people[who], **more)
        return False

    def if_open(self, own: bool = False) -> type[Exception] | None:
        if not self.model.is_open:
            return InvalidTransition
        return NotAllowed if own else None

    @rule(who=WHO)
    def approve(self, who: int) -> None:
        if self.attempt(approve, who, self.if_open(self.model.author == who)):
            self.model.moved("approved", "", (who, self.model.waiting))

    @rule(who=WHO)
    def edit(self, who: int) -> None:
        if self.attempt(edit, who, self.if_open(), text=f"{RULE} Variant {next(_texts)}."):
            self.model.author, self.model.revisions = who, self.model.revisions + 1
            self.model.moved("in_review", "second", (who, "second"))
            self.model.undoes_edit = True

    @rule(who=WHO)
    def reject(self, who: int) -> None:
        if self.attempt(reject, who, self.if_open(), reason="unclear"):
            self.model.moved("rejected", "", (who, self.model.waiting))

    @rule(who=WHO)
    def defer(self, who: int) -> None:
        refused = self.if_open() or (InvalidTransition if self.model.waiting == "deferred" else None)
        if self.attempt(defer, who, refused):
            self.model.moved("in_review", "deferred", (who, self.model.waiting))

    @rule(who=WHO)
    def send_back(self, who: int) -> None:
        refused = self.if_open() or (InvalidTransition if self.model.waiting == "sent_back" else None)
        refused = refused or self.if_open(self.model.author == who)
        if self.attempt(send_back, who, refused, reason="scope"):
            self.model.moved("in_review", "sent_back", (who, self.model.waiting))

    @rule(who=WHO)
    def reopen(self, who: int) -> None:
        if self.attempt(reopen, who, InvalidTransition if self.model.is_open else None, note="Look again."):
            self.model.moved("in_review", "" if self.model.author is None else "second", None)

    @rule(who=WHO)
    def undo(self, who: int) -> None:
        undoable = self.model.undoable
        allowed = undoable is not None and undoable[0] == who
        if self.attempt(undo, who, None if allowed else InvalidTransition) and undoable:
            if self.model.undoes_edit:
                # The text before it comes back as one more revision, and theirs: it needs a second reader too.
                self.model.author, self.model.revisions = who, self.model.revisions + 1
            self.model.moved("in_review", undoable[1], None)

    @rule(who=WHO)
    def approve_from_an_old_page(self, who: int) -> None:
        self.attempt(approve, who, Stale, version=self.model.version - 1)

    @invariant()
    def the_row_is_what_the_model_says(self) -> None:
        if not hasattr(self, "instruction"):
            return
        row = Instruction.objects.select_related("current_revision").get(pk=self.instruction.pk)
        assert row.current_revision is not None
        author = None if self.model.author is None else self.people[self.model.author].pk
        assert (row.status, row.waiting, row.version) == (self.model.status, self.model.waiting, self.model.version)
        assert (row.current_revision.number, row.current_revision.author_id) == (self.model.revisions, author)
        assert (row.approved_revision_id == row.current_revision_id) == (self.model.status == "approved")
        # One event for each change of the row, and nothing else.
        assert len(factories.audit_actions(row)) == self.model.version - 1

    @invariant()
    def nobody_approved_their_own_text(self) -> None:
        if hasattr(self, "instruction"):
            for decision in self.instruction.decisions.filter(kind="approve").select_related("revision"):
                assert decision.actor_id != decision.revision.author_id


@pytest.mark.django_db
def test_model_and_database_agree() -> None:
    ReviewMachine.task = factories.make_task()
    ReviewMachine.people = [factories.make_user(f"r{n}", Role.REVIEWER, Domain.LEGAL) for n in range(3)]
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    run_state_machine_as_test(
        ReviewMachine,
        settings=settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=checks),
    )
