"""What is asked of a task's signers, now and before."""

from dataclasses import dataclass

from django.db import connection
from django.db.models import Q, QuerySet

from rules.manifest import Policy
from rules.models import PolicyVerdict, Ruleset, SignOffPolicy, Task


def policy_in_force(task: Task) -> SignOffPolicy:
    """The newest confirmed version; every task has one. As the database function pld_policy_in_force."""
    confirmed = Q(version=1) | Q(decision__verdict=PolicyVerdict.CONFIRMED)
    return SignOffPolicy.objects.filter(confirmed, task=task).order_by("-version")[:1].get()


def policy_content(policy: SignOffPolicy) -> Policy:
    """The policy as a manifest carries it."""
    return Policy(
        version=policy.version,
        signers_required=policy.signers_required,
        signer_roles=sorted(policy.signer_roles),
        signatories_required=policy.signatories_required,
        domains=sorted(policy.domains),
        miners_may_sign=policy.miners_may_sign,
        publisher_may_have_signed=policy.publisher_may_have_signed,
        read_changed_first=policy.read_changed_first,
    )


@dataclass(frozen=True)
class PolicyState:
    """The policy in force, and the proposal that waits, if any."""

    in_force: SignOffPolicy
    proposed: SignOffPolicy | None


def policy_state(task: Task) -> PolicyState:
    waiting = SignOffPolicy.objects.filter(task=task, version__gt=1, decision=None).select_related("proposed_by")
    return PolicyState(policy_in_force(task), waiting.first())


def policy_history(task: Task) -> QuerySet[SignOffPolicy]:
    """Every version, newest first, with who proposed it and the word on it."""
    return SignOffPolicy.objects.filter(task=task).select_related("proposed_by", "decision").order_by("-version")


def to_be_read(ruleset: Ruleset) -> set[int]:
    """Instructions of a ruleset that a signer opens first: a person wrote the text, or it is in a standing conflict.

    Asked of the database's own function, so that the page and the guard never disagree.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT instruction_id FROM pld_to_be_read(%s)", [ruleset.pk])
        return {row[0] for row in cursor.fetchall()}


def unread_by(ruleset: Ruleset, person_id: int) -> set[int]:
    """Those this person has not opened yet."""
    return to_be_read(ruleset) - set(ruleset.reads.filter(reader=person_id).values_list("instruction_id", flat=True))
