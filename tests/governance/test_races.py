"""Tests 17 to 21: people at the same moment on two or three real connections, hundreds of rounds of each."""

from collections import Counter
from functools import partial
from typing import Any

import pytest
from django.db.models import F
from django.test import Client
from django.urls import reverse

from pld_app.accounts import account_deactivate
from pld_app.canonical import sha256_hex
from pld_app.models import AuditEvent, Domain, Role
from pld_app.role_grants import role_override
from rules.models import Decision, DecisionKind, Instruction, Meaning, Revision, Signature
from rules.selectors.publishing import current_publication
from rules.services import review
from rules.services.publishing import ruleset_withdraw
from rules.services.signing import ruleset_sign
from rules.services.tokens import token_create
from tests.factories import make_grant, make_instruction, make_proof, make_user
from tests.governance.conftest import Cast
from tests.governance.racing import racers, rounds
from tests.publishing import steps

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def conflicts(outcomes: list[Any]) -> list[int]:
    """HTTP statuses of those that were refused."""
    return [outcome.status for outcome in outcomes if outcome is not None]


def decisions_of(one: Instruction) -> list[tuple[str, int | None]]:
    return list(Decision.objects.filter(instruction=one).order_by("pk").values_list("kind", "actor_id"))


def test_17_of_two_decisions_on_one_text_exactly_one_counts(cast: Cast) -> None:
    task, ana, ben, _sam, _sue = cast
    winners: Counter[int | None] = Counter()
    with racers(2) as people:
        for _round in range(rounds(500)):
            one = make_instruction(task)
            outcomes = people.race(
                partial(review.instruction_approve, instruction_id=one.pk, reviewer=ana, version=1),
                partial(review.instruction_reject, instruction_id=one.pk, reviewer=ben, version=1, reason="unclear"),
            )
            assert conflicts(outcomes) == [409]
            ((kind, actor),) = decisions_of(one)
            one.refresh_from_db()
            assert (one.status, one.version) == ("approved" if kind == DecisionKind.APPROVE else "rejected", 2)
            winners[actor] += 1
    assert sum(winners.values()) == rounds(500)
    assert Decision.objects.count() == AuditEvent.objects.filter(object_type="instruction").count() == rounds(500)


def test_18_nobody_approves_a_text_they_were_not_shown(cast: Cast) -> None:
    """One editor, two approvers who were shown revision 1: an approval is of revision 1, and then there is no edit."""
    task, ana, ben, _sam, _sue = cast
    cleo = make_user("cleo", Role.REVIEWER, Domain.LEGAL)
    won: Counter[str] = Counter()
    with racers(3) as people:
        for number in range(rounds(500)):
            one = make_instruction(task)
            outcomes = people.race(
                partial(
                    review.instruction_edit, instruction_id=one.pk, reviewer=ana, version=1, text=f"New words {number}."
                ),
                partial(review.instruction_approve, instruction_id=one.pk, reviewer=ben, version=1),
                partial(review.instruction_approve, instruction_id=one.pk, reviewer=cleo, version=1),
            )
            assert conflicts(outcomes) == [409, 409]
            ((kind, _actor),) = decisions_of(one)
            won[kind] += 1
    approvals = Decision.objects.filter(kind=DecisionKind.APPROVE)
    assert not approvals.exclude(revision__number=1).exists()
    assert not approvals.filter(instruction__revisions__number=2).exists()
    assert not Instruction.objects.filter(status="approved").exclude(approved_revision=F("current_revision")).exists()
    assert Revision.objects.filter(number=2).count() == won[DecisionKind.EDIT]
    assert set(won) <= {DecisionKind.EDIT, DecisionKind.APPROVE}


def test_19_a_form_sent_three_times_acts_once(cast: Cast) -> None:
    """The version in the form is its idempotency key: the same POST again meets a row that has moved on."""
    task, ana, _ben, _sam, _sue = cast
    clients = [Client() for _sent in range(3)]
    for client in clients:
        client.force_login(ana)
    with racers(3) as people:
        for _round in range(rounds(200)):
            one = make_instruction(task)
            url = reverse("instruction-approve", args=[task.slug, one.number])
            answers: list[int] = []

            def post(client: Client, url: str = url, answers: list[int] = answers) -> None:
                answers.append(client.post(url, {"version": 1}).status_code)

            people.race(*[partial(post, client) for client in clients])
            assert sorted(answers) == [302, 409, 409]
            assert decisions_of(one) == [(DecisionKind.APPROVE, ana.pk)]
    assert AuditEvent.objects.filter(action="instruction.approved").count() == rounds(200)


def test_20_nobody_signs_after_they_were_closed_or_given_another_role(cast: Cast) -> None:
    task, ana, _ben, _sam, _sue = cast
    ada, eve = make_user("ada", Role.ADMIN), make_user("eve", Role.ADMIN)
    ruleset = steps.frozen(task, ana, 1)
    seen: Counter[bool] = Counter()
    with racers(2) as people:
        for number in range(rounds(200)):
            signer = make_user(f"signer{number}", Role.SIGNATORY)
            proof = make_proof(signer)
            # Nobody approves, so that the ruleset stays open for the signer of the next round.
            sign = partial(
                ruleset_sign,
                ruleset_id=ruleset.pk,
                signer=signer,
                proof=proof,
                meaning=Meaning.REVIEWED,
                manifest_sha256=ruleset.manifest_sha256,
            )
            if number % 2:
                revoke = partial(account_deactivate, user_id=signer.pk, by=ada)
            else:
                grant = make_grant(signer, Role.AUDITOR, by=ada, second=eve)
                revoke = partial(role_override, grant_id=grant.pk, by=eve, reason="Today.")
            signed, revoked = people.race(sign, revoke)
            assert revoked is None
            seen[signed is None] += 1
    assert Signature.objects.count() == seen[True]
    taken_away = {
        int(event.object_id): event.at
        for event in AuditEvent.objects.filter(action__in=["account.deactivated", "account.role_changed"])
    }
    assert len(taken_away) == rounds(200)
    late = [one.pk for one in Signature.objects.all() if one.at > taken_away[one.signer_id]]
    assert late == []


def test_21_what_is_withdrawn_is_not_served_and_no_answer_is_a_mix(cast: Cast) -> None:
    task, ana, _ben, sam, sue = cast
    steps.approved(task, ana, 1)
    _token, secret = token_create(task=task, name="student", actor=make_user("ada", Role.ADMIN))
    url = reverse("api:prompt", args=[task.slug]) + "?channel=staging"
    headers = {"Authorization": f"Bearer {secret}"}
    first = steps.again(task, ana, sam, sue)  # what there is to fall back to
    steps.publish(first, sam)
    seen: Counter[bool] = Counter()
    with racers(3) as people:
        for _round in range(rounds(60)):
            release = steps.again(task, ana, sam, sue)
            answers: list[dict[str, Any]] = []

            def read(answers: list[dict[str, Any]] = answers) -> None:
                client = Client()
                for _read in range(3):
                    answers.append(client.get(url, headers=headers).json())  # noqa: PERF401  # one after the other

            published, withdrawn, _read = people.race(
                partial(steps.publish, release, sam),
                partial(
                    ruleset_withdraw,
                    ruleset_id=release.ruleset_id,
                    actor=sue,
                    reason="Wrong.",
                    proof=make_proof(sue),
                ),
                read,
            )
            assert withdrawn is None
            seen[published is None] += 1
            for answer in answers:
                assert sha256_hex(answer["prompt"]) == answer["prompt_sha256"]
                of = first if answer["version"] == first.version else release
                assert (answer["version"], answer["manifest_sha256"]) == (of.version, of.manifest_sha256)
            now = current_publication(task.pk, "staging")
            assert now is not None
            assert now.release_id == first.pk
            assert Client().get(url, headers=headers).json()["version"] == first.version
            publication = release.publications.first()
            if publication is not None:  # then it came first
                event = AuditEvent.objects.get(action="ruleset.withdrawn", object_id=str(release.ruleset_id))
                assert publication.event_id < event.pk
    assert sum(seen.values()) == rounds(60)
