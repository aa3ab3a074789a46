"""Test 22: any order of acts, refusals and crashes; a model says what must be, and I1 to I14 hold after every step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pld_app.accounts import account_deactivate
from pld_app.errors import Refusal
from pld_app.models import Role, User
from pld_app.transparency.verify import log_verify
from pld_app.transparency.verify_block import Verdict
from rules.models import ChannelName, Instruction, Meaning, Ruleset, Task
from rules.selectors.publishing import current_release
from rules.services import review
from rules.services.publishing import release_create
from rules.services.signing import ruleset_sign
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import change_role, make_instruction, make_proof, make_task, make_user
from tests.governance.invariants import broken_invariants
from tests.governance.racing import full
from tests.governance.sealing import Log
from tests.publishing import steps

RUNS, STEPS = full(10, 2000), full(25, 50)
OPEN = ("proposed", "in_review")
FROZEN = ("in_sign_off", "signed")
TAMPERING = (
    "UPDATE rules_signature SET meaning = 'approved'",
    "DELETE FROM rules_decision",
    "UPDATE pld_app_auditevent SET actor_name = 'x'",
    "UPDATE rules_publication SET release_id = release_id",
    "UPDATE rules_ruleset SET prompt = prompt || ' ' WHERE manifest IS NOT NULL",
    "UPDATE pld_app_user SET role = 'admin', domain = '' WHERE role = 'auditor'",
)
_numbers = count(1)


class Crash(BaseException):
    """The process ended: nothing catches this."""


@contextmanager
def crashing(at: int) -> Iterator[None]:
    """The process ends before it sends its `at`th statement, and the server drops what was open."""
    sent = count(1)

    def watch(execute: Callable[..., Any], *arguments: Any) -> Any:
        if next(sent) == at:
            raise Crash
        return execute(*arguments)

    with connection.execute_wrapper(watch):
        yield


@dataclass
class Rule:
    """What the model knows of an instruction."""

    pk: int
    status: str = "proposed"
    author: str = ""
    revisions: int = 1


@dataclass
class Frozen:
    """What the model knows of a frozen ruleset."""

    pk: int
    rules: set[int]
    status: str = "in_sign_off"
    signed: dict[str, Meaning] = field(default_factory=dict)
    release: int | None = None


@dataclass(frozen=True)
class Act:
    """Something somebody tries, whether the rules allow it, and what it then does to the model."""

    run: Callable[[], object]
    is_allowed: bool
    then: Callable[[], object]


class House(RuleBasedStateMachine):
    """One task and its people. Every rule is tried by anybody, in any state."""

    log: Log

    @initialize()
    def begin(self) -> None:
        number = next(_numbers)
        self.task: Task = make_task(f"t{number}", publisher_may_have_signed=False)
        names = {"ana": Role.REVIEWER, "ben": Role.REVIEWER, "sam": Role.SIGNATORY, "sue": Role.SIGNATORY}
        names |= {"tom": Role.SIGNATORY, "ada": Role.ADMIN, "eve": Role.ADMIN}
        self.people: dict[str, User] = {
            name: make_user(f"{name}{number}", role, "legal" if role == Role.REVIEWER else "")
            for name, role in names.items()
        }
        self.working = set(names) - {"ada", "eve"}
        self.rules_: list[Rule] = [self._rule() for _rule in range(2)]
        self.sets: list[Frozen] = []
        self.published: list[Frozen] = []

    def _rule(self) -> Rule:
        return Rule(make_instruction(self.task, f"If {next(_numbers)} holds, then label Compliant.").pk)

    def _person(self, name: str) -> User:
        return User.objects.get(pk=self.people[name].pk)

    def _do(self, act: Act) -> None:
        try:
            act.run()
        except Refusal:
            assert not act.is_allowed, "a refusal where the rules allow it"
        else:
            assert act.is_allowed, "done where the rules forbid it"
            act.then()

    # What people try.

    def _decide(self, index: int, name: str, kind: str) -> Act:
        one = self.rules_[index % len(self.rules_)]
        version = Instruction.objects.values_list("version", flat=True).get(pk=one.pk)
        acts: dict[str, Callable[..., object]] = {
            "edit": partial(review.instruction_edit, text=f"If {next(_numbers)} fails, then label Breach."),
            "approve": review.instruction_approve,
            "reject": partial(review.instruction_reject, reason="unclear"),
            "reopen": partial(review.instruction_reopen, note="Once more."),
        }
        may = name in self.working and name in {"ana", "ben"}
        is_open = one.status in OPEN
        may = may and (is_open if kind != "reopen" else not is_open) and not (kind == "approve" and one.author == name)

        def then() -> None:
            one.status = {"approve": "approved", "reject": "rejected"}.get(kind, "in_review")
            if kind == "edit":
                one.author, one.revisions = name, one.revisions + 1
            if kind == "reopen":
                for holder in self.sets:
                    if one.pk in holder.rules and holder.status in FROZEN and holder.release is None:
                        holder.status = "withdrawn"

        run = partial(acts[kind], instruction_id=one.pk, reviewer=self._person(name), version=version)
        return Act(run, may, then)

    def _sign(self, index: int, name: str, meaning: Meaning) -> Act:
        one = self.sets[index % len(self.sets)]
        row = Ruleset.objects.get(pk=one.pk)
        signer = self._person(name)
        may = name in self.working and name in {"sam", "sue", "tom"} and meaning != Meaning.AUTHORED
        may = may and one.status == "in_sign_off" and name not in one.signed
        if may:
            steps.read_changed(row, signer)

        def then() -> None:
            one.signed[name] = meaning
            counted = [said for said in one.signed.values() if said != Meaning.REJECTED]
            approved = {Meaning.APPROVED, Meaning.CONDITIONS} & set(counted)
            if len(counted) >= 2 and approved and Meaning.REJECTED not in one.signed.values():
                one.status = "signed"

        run = partial(
            ruleset_sign,
            ruleset_id=one.pk,
            signer=signer,
            proof=make_proof(signer),
            meaning=meaning,
            manifest_sha256=row.manifest_sha256,
            conditions="On a condition." if meaning in {Meaning.CONDITIONS, Meaning.REJECTED} else "",
        )
        return Act(run, may, then)

    def _publish(self, index: int, name: str) -> Act:
        released = [one for one in self.sets if one.release is not None]
        one = released[index % len(released)]
        may = name in self.working and name in {"sam", "sue", "tom"} and name not in one.signed
        newest = self.published[-1] if self.published else None
        may = may and one.status == "signed" and newest is not one
        release = self.task.releases.get(pk=one.release or 0)
        return Act(partial(steps.publish, release, self._person(name)), may, lambda: self.published.append(one))

    def _revoke(self, index: int, name: str) -> Act:
        one = self.sets[index % len(self.sets)]
        actor = self._person(name)
        may = name in self.working and (
            (actor.role == Role.SIGNATORY and one.status in FROZEN)
            or (actor.role == Role.REVIEWER and one.status == "in_sign_off")
        )
        run = partial(ruleset_withdraw, ruleset_id=one.pk, actor=actor, reason="Wrong.", proof=make_proof(actor))
        return Act(run, may, lambda: setattr(one, "status", "withdrawn"))

    anybody = st.sampled_from(["ana", "ben", "sam", "sue", "tom", "ada"])
    some = st.integers(0, 9)
    reviewers = st.sampled_from(["ana", "ben", "ana", "ben", "sam", "ada"])
    kinds = st.sampled_from(["edit", "approve", "approve", "approve", "reject", "reopen"])
    meanings = st.sampled_from([*Meaning, Meaning.APPROVED, Meaning.REVIEWED])

    @precondition(lambda self: len(self.rules_) < 5)
    @rule()
    def propose(self) -> None:
        self.rules_.append(self._rule())

    @rule(index=some, name=reviewers, kind=kinds)
    def decide(self, index: int, name: str, kind: str) -> None:
        self._do(self._decide(index, name, kind))

    @precondition(lambda self: any(one.status == "approved" for one in self.rules_) and {"ana", "ben"} & self.working)
    @rule()
    def freeze(self) -> None:
        composer = min({"ana", "ben"} & self.working)
        made = steps.again_frozen(self.task, self._person(composer))
        self.sets.append(Frozen(made.pk, {one.pk for one in self.rules_ if one.status == "approved"}))

    @precondition(lambda self: self.sets)
    @rule(index=some, name=anybody, meaning=meanings)
    def sign(self, index: int, name: str, meaning: Meaning) -> None:
        self._do(self._sign(index, name, meaning))

    @precondition(lambda self: self.sets)
    @rule(index=some, name=anybody)
    def release(self, index: int, name: str) -> None:
        one = self.sets[index % len(self.sets)]
        may = name in self.working and name in {"sam", "sue", "tom"}
        may = may and one.status == "signed" and one.release is None
        run = partial(release_create, ruleset_id=one.pk, signatory=self._person(name))
        self._do(Act(run, may, lambda: setattr(one, "release", Ruleset.objects.get(pk=one.pk).release.pk)))

    @precondition(lambda self: self.sets)
    @rule(index=some)
    def go_on(self, index: int) -> None:
        """The next step of a ruleset by somebody who may take it: chance alone rarely gets as far as a publication."""
        one = self.sets[index % len(self.sets)]
        free = sorted({"sam", "sue", "tom"} & self.working - set(one.signed))
        if one.status == "in_sign_off" and free:
            self._do(self._sign(index, free[0], Meaning.APPROVED))
        elif one.status == "signed" and one.release is None and {"sam", "sue", "tom"} & self.working:
            self.release(index, min({"sam", "sue", "tom"} & self.working))
        elif one.release is not None and free:
            released = [other for other in self.sets if other.release is not None]
            self._do(self._publish(released.index(one), free[0]))

    @precondition(lambda self: any(one.release is not None for one in self.sets))
    @rule(index=some, name=anybody)
    def publish(self, index: int, name: str) -> None:
        self._do(self._publish(index, name))

    @precondition(lambda self: self.sets)
    @rule(index=some, name=anybody)
    def revoke(self, index: int, name: str) -> None:
        self._do(self._revoke(index, name))

    @precondition(lambda self: len(self.working) > 3 and self.published)
    @rule(name=anybody, is_closed=st.booleans())
    def take_away(self, name: str, is_closed: bool) -> None:
        """Closed, or given a role that decides nothing, by two administrators."""
        if name not in self.working:
            return
        if is_closed:
            account_deactivate(user_id=self.people[name].pk, by=self.people["ada"])
        else:
            change_role(self.people[name], Role.AUDITOR, by=self.people["ada"])
        self.working.discard(name)

    @rule()
    def seal(self) -> None:
        self.log.seal()

    @rule(statement=st.sampled_from(TAMPERING))
    def tamper(self, statement: str) -> None:
        """Past every service: refused, or there was nothing yet that it could have changed."""
        with connection.cursor() as cursor:
            try:
                cursor.execute(statement)
            except DatabaseError:
                return
            assert cursor.rowcount == 0, statement

    @rule(index=some, name=anybody, kind=kinds, meaning=meanings, at=st.integers(1, 40), of=st.integers(0, 3))
    def crash(self, index: int, name: str, kind: str, meaning: Meaning, at: int, of: int) -> None:
        """The same acts by a process that ends in their midst: done as a whole, or not at all."""
        if of == 1 and self.sets:
            act = self._sign(index, name, meaning)
        elif of == 2 and any(one.release is not None for one in self.sets):
            act = self._publish(index, name)
        elif of == 3 and self.sets:
            act = self._revoke(index, name)
        else:
            act = self._decide(index, name, kind)
        try:
            with crashing(at):
                self._do(act)
        except Crash:
            connection.close()

    # What must be.

    @invariant()
    def the_model_is_the_database(self) -> None:
        rows = Instruction.objects.filter(task=self.task).order_by("pk").prefetch_related("revisions")
        found = [(row.pk, row.status, len(row.revisions.all())) for row in rows]
        assert found == [(one.pk, one.status, one.revisions) for one in self.rules_]
        sets = Ruleset.objects.filter(task=self.task).order_by("pk").prefetch_related("signatures__signer")
        assert [(row.pk, row.status, self._said(row)) for row in sets] == [
            (one.pk, one.status, one.signed) for one in self.sets
        ]
        served = current_release(self.task, ChannelName.STAGING)
        valid = [one.release for one in self.published if one.status == "signed"]
        assert (served.pk if served else None) == (valid[-1] if valid else None)

    def _said(self, row: Ruleset) -> dict[str, str]:
        names = {user.pk: name for name, user in self.people.items()}
        return {names[one.signer_id]: one.meaning for one in row.signatures.all()}

    @invariant()
    def every_invariant_holds(self) -> None:
        assert broken_invariants(self.task.pk) == []


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_22_any_order_of_acts_and_crashes(tmp_path: Path, settings: Any) -> None:
    House.log = Log(tmp_path, settings)
    run_state_machine_as_test(House, settings=_settings())
    House.log.seal()
    assert log_verify().verdict == Verdict.INTACT


def _settings() -> settings:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    return settings(
        max_examples=RUNS, stateful_step_count=STEPS, deadline=None, suppress_health_check=quiet, database=None
    )


@pytest.mark.django_db
def test_the_check_sees_what_is_broken(task: Task, ana: User, sam: User, sue: User) -> None:
    """Each kind of damage by the owner of the tables is named."""
    release = steps.released(task, ana, sam, sue)
    assert broken_invariants(task.pk) == []
    for table, change, name in (
        ("rules_revision", "number = number + 1", "I1 revisions"),
        ("rules_signature", "manifest_sha256 = repeat('0', 64)", "I2"),
        ("rules_instruction", "approved_revision_id = NULL", "I3"),
        ("rules_signature", f"signer_id = {ana.pk}", "I4 who worked on it"),
        ("rules_signature", "meaning = 'reviewed'", "I6"),
        ("rules_release", "prompt = prompt || ' '", "I7"),
        ("rules_signature", "signer_role = 'admin'", "I8"),
        ("rules_signature", "reauthentication_id = NULL", "I9"),
        ("rules_ruleset", "status = 'withdrawn'", "I12"),
        ("rules_decision", f"actor_id = {sue.pk}", "I14"),
    ):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            for constraint in ("signature_one_per_person", "instruction_approval_is_of_current_text"):
                owner = "rules_signature" if constraint.startswith("signature") else "rules_instruction"
                cursor.execute(f"ALTER TABLE {owner} DROP CONSTRAINT {constraint}")
            cursor.execute(f"UPDATE {table} SET {change}")
            assert any(one.startswith(name) for one in broken_invariants(task.pk)), name
            transaction.set_rollback(True)
    assert release.version == 1
