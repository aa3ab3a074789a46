"""The way of a ruleset in few words: each step as the person who may take it."""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.models import Role, User
from rules.models import (
    ChannelName,
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Meaning,
    PolicyDecision,
    Publication,
    Release,
    Revision,
    Ruleset,
    ScheduledPublication,
    Signature,
    SignOffPolicy,
    Task,
)
from rules.selectors.policy import policy_in_force, to_be_read
from rules.services.policy import POINTS
from rules.services.publishing import release_create, release_publish
from rules.services.rulesets import ruleset_create, ruleset_freeze
from rules.services.scheduling import publication_schedule
from rules.services.signing import rule_read, ruleset_sign
from tests.factories import approve_directly, make_instruction, make_proof, make_reauthentication, make_user


def approved(task: Task, reviewer: User, count: int = 3) -> list[Instruction]:
    """Instructions this reviewer has approved."""
    texts = [f"If clause {number} allows copies, then label Compliant." for number in range(1, count + 1)]
    return [approve_directly(make_instruction(task, text), reviewer) for text in texts]


def draft(task: Task, composer: User, count: int = 3) -> Ruleset:
    """A draft of `count` approved instructions."""
    approved(task, composer, count)
    return ruleset_create(task=task, composer=composer)


def frozen(task: Task, composer: User, count: int = 3) -> Ruleset:
    """A ruleset in sign-off."""
    ruleset = draft(task, composer, count)
    return ruleset_freeze(ruleset_id=ruleset.pk, editor=composer, version=ruleset.version)


@transaction.atomic
def edit(instruction: Instruction, author: User, text: str = "Words of a reviewer.") -> None:
    """A new text by this person, past the services."""
    number = 1 + instruction.revisions.count()
    event = audit_record("instruction.edited", actor=author, subject=instruction)
    instruction.current_revision = Revision.objects.create(
        instruction=instruction, number=number, text=text, text_sha256=sha256_hex(text), author=author, event=event
    )
    instruction.save(update_fields=["current_revision"])


@transaction.atomic
def propose(task: Task, **points: Any) -> SignOffPolicy:
    """A proposed sign-off policy, past the services; by default one signer more."""
    proposer = User.objects.filter(username="policy1").first() or make_user("policy1", Role.ADMIN)
    old = policy_in_force(task)
    values = {name: getattr(old, name) for name in POINTS} | (points or {"signers_required": old.signers_required + 1})
    return SignOffPolicy.objects.create(
        task=task,
        version=1 + task.policies.count(),
        proposed_by=proposer,
        reason="For the test.",
        reauthentication=make_reauthentication(proposer, task, purpose="policy"),
        authenticated_at=timezone.now(),
        event=audit_record("policy.proposed", actor=proposer, subject=task),
        **values,
    )


@transaction.atomic
def policy(task: Task, **points: Any) -> SignOffPolicy:
    """Another sign-off policy in force, past the services: proposed by one administrator, confirmed by another."""
    made = propose(task, **points)
    second = User.objects.filter(username="policy2").first() or make_user("policy2", Role.ADMIN)
    PolicyDecision.objects.create(
        policy=made,
        verdict="confirmed",
        actor=second,
        actor_name=str(second),
        actor_role=second.role,
        reauthentication=make_reauthentication(second, made, purpose="policy"),
        authenticated_at=timezone.now(),
        event=audit_record("policy.confirmed", actor=second, subject=task),
    )
    task.refresh_from_db()
    return made


def read_changed(ruleset: Ruleset, *readers: User) -> None:
    """Open every edited or conflicting instruction as each of these people."""
    for reader in readers:
        for instruction_id in to_be_read(ruleset):
            rule_read(ruleset_id=ruleset.pk, instruction_id=instruction_id, reader=reader)


def minutes_ago(minutes: float) -> datetime:
    return timezone.now() - timedelta(minutes=minutes)


def reopen(instruction: Instruction, reviewer: User) -> None:
    """Reopen past the services, as the database demands it: event, decision, then status."""
    instruction.refresh_from_db()
    with transaction.atomic():
        event = audit_record("instruction.reopened", actor=reviewer, subject=instruction)
        revision = instruction.current_revision
        assert revision is not None
        Decision.objects.create(
            instruction=instruction, revision=revision, kind=DecisionKind.REOPEN, actor=reviewer, event=event
        )
        instruction.status = InstructionStatus.IN_REVIEW
        instruction.approved_revision = None
        instruction.save(update_fields=["status", "approved_revision"])


def sign(ruleset: Ruleset, signer: User, meaning: Meaning = Meaning.APPROVED) -> Signature:
    """Sign as somebody who opened what the policy asks to be opened."""
    read_changed(ruleset, signer)
    return ruleset_sign(
        ruleset_id=ruleset.pk,
        signer=signer,
        proof=make_proof(signer),
        meaning=meaning,
        manifest_sha256=ruleset.manifest_sha256,
    )


def signed(task: Task, composer: User, first: User, second: User, count: int = 3) -> Ruleset:
    """A ruleset that two people have signed."""
    ruleset = frozen(task, composer, count)
    sign(ruleset, first, Meaning.REVIEWED)
    sign(ruleset, second)
    ruleset.refresh_from_db()
    return ruleset


def released(task: Task, composer: User, first: User, second: User, count: int = 3) -> Release:
    """A release nobody has published yet."""
    return release_create(ruleset_id=signed(task, composer, first, second, count).pk, signatory=first)


def publish(release: Release, actor: User, channel: ChannelName = ChannelName.STAGING) -> Publication:
    return release_publish(release_id=release.pk, channel=channel, actor=actor, proof=make_proof(actor))


def schedule(release: Release, actor: User, **fields: Any) -> ScheduledPublication:
    """A publication for tomorrow, to staging by default."""
    channel = fields.pop("channel", ChannelName.STAGING)
    newest = release.task.publications.filter(channel=channel).order_by("-pk").first()
    values: dict[str, Any] = {
        "effective_from": timezone.now() + timedelta(days=1),
        "expected_newest": newest.pk if newest else 0,
        "proof": make_proof(actor),
    }
    return publication_schedule(release_id=release.pk, channel=channel, actor=actor, **(values | fields))


def in_production(task: Task, composer: User, first: User, second: User, count: int = 3) -> Release:
    """A release that went to staging and then to production."""
    release = released(task, composer, first, second, count)
    publish(release, first)
    publish(release, first, ChannelName.PRODUCTION)
    return release


def again_draft(task: Task, composer: User) -> Ruleset:
    """One more draft of the instructions approved by now."""
    return ruleset_create(task=task, composer=composer)


def again_frozen(task: Task, composer: User) -> Ruleset:
    """One more ruleset in sign-off, of the instructions approved by now."""
    ruleset = again_draft(task, composer)
    return ruleset_freeze(ruleset_id=ruleset.pk, editor=composer, version=ruleset.version)


def again(task: Task, composer: User, first: User, second: User) -> Release:
    """One more release of the instructions approved by now."""
    ruleset = again_frozen(task, composer)
    sign(ruleset, first)
    sign(ruleset, second)
    return release_create(ruleset_id=ruleset.pk, signatory=first)
