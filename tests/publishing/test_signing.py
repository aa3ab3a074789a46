"""Signing: the password again, a meaning, four eyes; who may not and what locks."""

from datetime import timedelta

import pytest
from django.utils import timezone

from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, Role, User
from rules.exceptions import Stale
from rules.models import Meaning, Ruleset, RulesetStatus, Signature, Task
from rules.selectors import rulesets as selectors
from rules.services.rulesets import ruleset_create, ruleset_freeze, ruleset_item_move
from rules.services.signing import ProofRefused, ruleset_sign
from rules.services.withdrawing import ruleset_withdraw
from tests.factories import approve_directly, audit_actions, event_backdate, make_instruction, make_proof, make_user
from tests.publishing import steps


def test_two_signatures_make_a_ruleset_signed(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.frozen(task, ana)
    first = steps.sign(ruleset, sam, Meaning.REVIEWED)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.IN_SIGN_OFF
    steps.sign(ruleset, sue)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED
    assert (first.signer_name, first.signer_role, first.manifest_sha256) == (
        "Sam",
        Role.SIGNATORY,
        ruleset.manifest_sha256,
    )
    assert audit_actions(ruleset)[-2:] == ["ruleset.signed", "ruleset.signed"]
    events = AuditEvent.objects.filter(action="ruleset.signed").order_by("pk")
    assert [event.data["completes"] for event in events] == [False, True]


def test_two_reviewed_marks_are_not_enough_one_must_approve(task: Task, ana: User, sam: User, sue: User) -> None:
    ruleset = steps.frozen(task, ana)
    for signer in (sam, sue):
        steps.sign(ruleset, signer, Meaning.REVIEWED)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.IN_SIGN_OFF
    steps.sign(ruleset, make_user("sol", Role.SIGNATORY))
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED


@pytest.mark.parametrize("meaning", ["", "maybe"])
def test_a_signature_needs_a_meaning(task: Task, ana: User, sam: User, meaning: str) -> None:
    ruleset = steps.frozen(task, ana)
    with pytest.raises(InvalidInput, match="what your signature means"):
        ruleset_sign(
            ruleset_id=ruleset.pk,
            signer=sam,
            proof=make_proof(sam),
            meaning=meaning,
            manifest_sha256=ruleset.manifest_sha256,
        )


def test_another_hash_than_the_one_shown_is_refused(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    ruleset.manifest_sha256 = "0" * 64
    with pytest.raises(Stale, match="not the manifest you were shown"):
        steps.sign(ruleset, sam)
    assert not Signature.objects.exists()


def test_nobody_signs_twice(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    steps.sign(ruleset, sam)
    with pytest.raises(Stale, match="already signed"):
        steps.sign(ruleset, sam)


@pytest.mark.parametrize("name", ["abe", "ada", "ben"])
def test_a_role_outside_the_policy_does_not_sign(
    task: Task, ana: User, name: str, request: pytest.FixtureRequest
) -> None:
    ruleset = steps.frozen(task, ana)
    with pytest.raises(NotAllowed, match="role may not sign"):
        steps.sign(ruleset, request.getfixturevalue(name))


def test_a_deactivated_signatory_does_not_sign(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    User.objects.filter(pk=sam.pk).update(is_active=False)
    with pytest.raises(ProofRefused):
        steps.sign(ruleset, sam)  # the object in memory still says active


def test_every_composer_and_every_author_is_left_out(task: Task, ana: User, ben: User, sam: User) -> None:
    """With reviewers in the policy: who composed once, who edited last and who wrote a text are refused."""
    steps.policy(task, signer_roles=[Role.SIGNATORY, Role.REVIEWER])
    cleo, dora = (make_user(name, Role.REVIEWER, "legal") for name in ("cleo", "dora"))
    instruction = make_instruction(task)
    steps.edit(instruction, cleo)
    approve_directly(instruction, dora)
    steps.approved(task, ana, 2)
    ruleset = ruleset_create(task=task, composer=ana)
    item = ruleset.items.get(position=1)
    ruleset = ruleset_item_move(ruleset_id=ruleset.pk, item_id=item.pk, to=2, editor=ben, version=ruleset.version)
    ruleset = ruleset_freeze(ruleset_id=ruleset.pk, editor=ben, version=ruleset.version)
    for person, why in ((ana, "Composed"), (ben, "Composed"), (cleo, "Wrote the text of #1")):
        with pytest.raises(NotAllowed, match=why):
            steps.sign(ruleset, person)
    assert {one.user.username: one.excluded for one in selectors.signers(ruleset)} == {
        "ana": "Composed this ruleset",
        "ben": "Composed this ruleset",
        "cleo": "Wrote the text of #1",
        "dora": "",
        "sam": "",
    }
    steps.sign(ruleset, dora)
    steps.sign(ruleset, sam)
    ruleset.refresh_from_db()
    assert ruleset.status == RulesetStatus.SIGNED


def _sign_with(ruleset: Ruleset, signer: User, password: str) -> None:
    ruleset_sign(
        ruleset_id=ruleset.pk,
        signer=signer,
        proof=make_proof(signer, password=password),
        meaning=Meaning.APPROVED,
        manifest_sha256=ruleset.manifest_sha256,
    )


def test_a_wrong_password_signs_nothing_and_is_on_the_log(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    with pytest.raises(ProofRefused, match="password is not right"):
        _sign_with(ruleset, sam, "wrong")
    assert not Signature.objects.exists()
    event = AuditEvent.objects.get(action="signature.refused")
    assert (event.actor, event.object_id) == (sam, str(ruleset.pk))
    assert event.data == {"purpose": "sign", "cause": "password"}


def test_five_wrong_passwords_lock_signing_for_a_quarter_of_an_hour(
    task: Task, ana: User, sam: User, sue: User
) -> None:
    ruleset = steps.frozen(task, ana)
    for attempt in range(5):
        with pytest.raises(ProofRefused, match="locked" if attempt == 4 else "not right"):
            _sign_with(ruleset, sam, "wrong")
    with pytest.raises(ProofRefused, match="locked"):
        steps.sign(ruleset, sam)  # the right one now helps no more
    steps.sign(ruleset, sue)  # and nobody else is locked
    causes = AuditEvent.objects.filter(action="signature.refused").order_by("pk").values_list("data__cause", flat=True)
    assert list(causes) == [*["password"] * 5, "locked"]


@pytest.mark.parametrize(
    ("ages", "locked"), [([16, 3, 2, 1, 0], False), ([14, 3, 2, 1, 0], True), ([30, 29, 28, 27, 16], False)]
)
def test_only_five_within_fifteen_minutes_lock_and_only_for_fifteen(
    task: Task, ana: User, sam: User, ages: list[int], locked: bool
) -> None:
    """`ages` in minutes; the events are written with their time, which only a test may do."""
    ruleset = steps.frozen(task, ana)
    for age in ages:
        event = AuditEvent.objects.create(
            actor=sam,
            actor_name="Sam",
            actor_role=sam.role,
            action="signature.refused",
            object_type="ruleset",
            object_id=str(ruleset.pk),
            object_label="x",
            data={"cause": "password", "purpose": "sign"},
        )
        event_backdate(event, timezone.now() - timedelta(minutes=age))
    if locked:
        with pytest.raises(ProofRefused, match="locked"):
            steps.sign(ruleset, sam)
    else:
        steps.sign(ruleset, sam)


def test_a_withdrawn_ruleset_is_not_signed(task: Task, ana: User, sam: User) -> None:
    ruleset = steps.frozen(task, ana)
    ruleset_withdraw(ruleset_id=ruleset.pk, actor=ana, reason="No.", proof=make_proof(ana))
    with pytest.raises(Stale, match="not in sign-off"):
        steps.sign(ruleset, sam)


def test_a_draft_is_not_signed(task: Task, ana: User, sam: User) -> None:
    with pytest.raises(Stale, match="not in sign-off"):
        steps.sign(steps.draft(task, ana), sam)
