"""What a channel served at a moment in the past, from rows that never change; and who fetched it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from rules.models import (
    EmergencyStop,
    PromptRead,
    Publication,
    PublicationKind,
    Revocation,
    RulesetItem,
    StopSignature,
    StopSignatureKind,
    Task,
)
from rules.selectors.approvals import ApprovedRule, approved_rules
from rules.selectors.signatures import SignatureFacts, signatures_of


def served_at(task_id: int, channel: str, at: datetime) -> Publication | None:
    """The publication that was in force at `at`, with its release and ruleset, or None: nothing was served.

    The same rule as `publications_valid`, with what was withdrawn, stopped, lifted or over by then.
    """
    in_channel = Publication.objects.filter(task_id=task_id, channel=channel, at__lte=at)
    target_was_there_before = in_channel.filter(release=OuterRef("release"), pk__lt=OuterRef(OuterRef("pk")))
    left_behind = in_channel.filter(
        Exists(target_was_there_before), kind=PublicationKind.ROLLBACK, pk__gt=OuterRef("pk")
    ).exclude(release=OuterRef("release"))
    ruleset = OuterRef("release__ruleset")
    lifted = StopSignature.objects.filter(stop=OuterRef("pk"), kind=StopSignatureKind.LIFT, at__lte=at)
    held = RulesetItem.objects.filter(ruleset=OuterRef(ruleset)).values("instruction")
    stopped = EmergencyStop.objects.filter(~Exists(lifted), Q(ruleset=ruleset) | Q(instruction__in=held), at__lte=at)
    return (
        in_channel.filter(Q(until=None) | Q(until__gt=at), ~Exists(left_behind), ~Exists(stopped))
        .filter(~Exists(Revocation.objects.filter(ruleset=ruleset, at__lte=at)))
        .select_related("release__ruleset", "task")
        .order_by("-pk")
        .first()
    )


@dataclass(frozen=True)
class Served:
    """The answer to "what did the student see at T": what was in force, who signed and published it, who fetched it."""

    publication: Publication | None
    rules: list[ApprovedRule]
    signatures: list[SignatureFacts]
    reads: list[PromptRead]


def served(task: Task, channel: str, at: datetime) -> Served:
    publication = served_at(task.pk, channel, at)
    ruleset = publication.release.ruleset if publication else None
    near = PromptRead.objects.filter(
        token__task=task, channel=channel, minute__gte=at - timedelta(hours=1), minute__lte=at
    )
    return Served(
        publication=publication,
        rules=approved_rules(ruleset) if ruleset else [],
        signatures=signatures_of(ruleset) if ruleset else [],
        reads=list(near.select_related("token", "release").defer("release__prompt")[:25]),
    )


def reads(task: Task) -> QuerySet[PromptRead]:
    """What was fetched, newest minute first."""
    return PromptRead.objects.filter(token__task=task).select_related("token", "release").defer("release__prompt")
