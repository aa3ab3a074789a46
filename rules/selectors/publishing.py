"""What a channel serves, and what the release pages show."""

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.http import Http404

from pld_app.transparency.health import SealState, seal_states
from rules.changes import Changes, changes_between
from rules.manifest import Manifest, manifest_read
from rules.models import (
    ChannelName,
    EmergencyStop,
    PromptToken,
    Publication,
    PublicationKind,
    Release,
    Ruleset,
    RulesetItem,
    RulesetStatus,
    Task,
)


def _in_use() -> Q:
    """Publications that are not over by the database's clock."""
    return Q(until=None) | Q(until__gt=Now())


def _stopped() -> Exists:
    """Whether an emergency stop holds the publication's ruleset or an instruction in it."""
    ruleset = OuterRef("release__ruleset")
    held = RulesetItem.objects.filter(ruleset=OuterRef(ruleset)).values("instruction")
    return Exists(EmergencyStop.objects.active().filter(Q(ruleset=ruleset) | Q(instruction__in=held)))


def publications_valid(task_id: int, channel: str) -> QuerySet[Publication]:
    """Publications a channel may serve, the one in force first.

    A withdrawn or stopped ruleset serves no more, nor does a publication whose time is over, and then the release that
    was there before does. A release that somebody rolled back from is not served again that way: it takes a new
    publication.
    """
    in_channel = Publication.objects.filter(task_id=task_id, channel=channel)
    target_was_there_before = in_channel.filter(release=OuterRef("release"), pk__lt=OuterRef(OuterRef("pk")))
    left_behind = in_channel.filter(
        Exists(target_was_there_before), kind=PublicationKind.ROLLBACK, pk__gt=OuterRef("pk")
    ).exclude(release=OuterRef("release"))
    valid = in_channel.filter(_in_use(), ~Exists(left_behind), release__ruleset__status=RulesetStatus.SIGNED)
    return valid.filter(~_stopped()).order_by("-pk")


@dataclass(frozen=True)
class Serving:
    """What a channel answers: the publication in force or nothing, and whether that is not the newest one and why."""

    publication: Publication | None
    fallback: str
    """Empty, or why the newest publication is not served: "stopped", "withdrawn" or "ended"."""


def serving(task_id: int, channel: str) -> Serving:
    """The publication in force, with its release and ruleset."""
    # Nobody can have rolled back from the newest one, so it is in force unless it was withdrawn, stopped or is over.
    # The whole condition is needed only then; to build and plan it costs more than all else the student asks for.
    in_channel = Publication.objects.filter(task_id=task_id, channel=channel).select_related("release__ruleset")
    newest = in_channel.annotate(is_stopped=_stopped(), is_over=Q(until__lte=Now())).order_by("-pk").first()
    if newest is None:
        return Serving(None, "")
    why = "withdrawn" if newest.release.ruleset.status != RulesetStatus.SIGNED else ""
    why = why or ("stopped" if newest.is_stopped else "ended" if newest.is_over else "")
    if not why:
        return Serving(newest, "")
    return Serving(publications_valid(task_id, channel).select_related("release__ruleset").first(), why)


def current_publication(task_id: int, channel: str) -> Publication | None:
    """The publication in force, with its release and ruleset, or None: nothing is served."""
    return serving(task_id, channel).publication


def current_release(task: Task, channel: str) -> Release | None:
    """The last valid signed release of a channel, or nothing."""
    publication = current_publication(task.pk, channel)
    return publication.release if publication else None


@dataclass(frozen=True)
class ChannelState:
    """One channel: what it serves, and the releases it can go to."""

    channel: ChannelName
    publication: Publication | None
    newest_id: int
    """Key of the newest publication in it, 0 when there is none: forms carry it, so that an old page is refused."""
    can_publish: list[Release]
    can_roll_back: list[Release]
    fallback: str
    """Why the newest publication is not the one served, as `Serving` has it, or empty."""

    @property
    def is_superseded(self) -> bool:
        return bool(self.fallback)


def channel_states(task: Task) -> list[ChannelState]:
    """Both channels, staging first; the number of queries is the same whatever the history."""
    stopped = set(stopped_rulesets(task))
    signed = Release.objects.filter(task=task, ruleset__status=RulesetStatus.SIGNED).defer("prompt")
    releases = [one for one in signed.order_by("-version") if one.ruleset_id not in stopped]
    history: dict[str, list[tuple[int, int]]] = {}
    for channel, pk, release in task.publications.order_by("pk").values_list("channel", "pk", "release_id"):
        history.setdefault(channel, []).append((pk, release))
    return [_channel_state(task, channel, releases, history) for channel in ChannelName]


def _channel_state(
    task: Task, channel: ChannelName, releases: list[Release], history: dict[str, list[tuple[int, int]]]
) -> ChannelState:
    now = serving(task.pk, channel)
    current = now.publication
    current_id = current.release_id if current else 0
    been_here = {release for _, release in history.get(channel, [])}
    staged = {release for _, release in history.get(ChannelName.STAGING, [])}
    other = [release for release in releases if release.pk != current_id]
    return ChannelState(
        channel=channel,
        publication=current,
        newest_id=max((pk for pk, _ in history.get(channel, [])), default=0),
        can_publish=[one for one in other if channel == ChannelName.STAGING or one.pk in staged],
        can_roll_back=[one for one in other if one.pk in been_here],
        fallback=now.fallback,
    )


def stopped_rulesets(task: Task) -> QuerySet[Ruleset, int]:
    """Rulesets that a stop holds, as a whole or for one instruction in them, by key."""
    active = EmergencyStop.objects.active().filter(task=task)
    by_rule = RulesetItem.objects.filter(instruction__in=active.values("instruction")).values("ruleset")
    held = Q(pk__in=active.values("ruleset")) | Q(pk__in=by_rule)
    return Ruleset.objects.filter(held, task=task).values_list("pk", flat=True)


@dataclass(frozen=True)
class SealedPublication:
    """A publication, and where its event stands in the sealed audit log; None while no checkpoint covers it."""

    publication: Publication
    seal: SealState | None


def publications_sealed(release: Release) -> list[SealedPublication]:
    """Where a release went, newest first, in two queries."""
    found = list(release.publications.order_by("-pk"))
    seals = seal_states([one.event_id for one in found])
    return [SealedPublication(one, seals.get(one.event_id)) for one in found]


def publications(task: Task) -> QuerySet[Publication]:
    """The history of both channels, newest first."""
    return task.publications.select_related("release").defer("release__prompt")


def releases(task: Task) -> QuerySet[Release]:
    """Releases of a task, newest first, with ruleset and who made them."""
    return task.releases.select_related("ruleset", "created_by").defer("prompt", "ruleset__prompt", "ruleset__manifest")


def release_get(slug: str, version: int) -> Release:
    """The release with task and ruleset, or 404."""
    found = Release.objects.select_related("task", "ruleset", "created_by").filter(task__slug=slug, version=version)
    release = found.first()
    if release is None:
        raise Http404
    return release


def release_manifest(release: Release) -> Manifest:
    """The signed content of a release."""
    return manifest_read(bytes(release.ruleset.manifest or b""))


def changes_against_production(task: Task, manifest: Manifest) -> tuple[Release | None, Changes]:
    """The release production serves, and what this manifest changes against it (everything is new without one)."""
    release = current_release(task, ChannelName.PRODUCTION)
    old = release_manifest(release).instructions if release else []
    return release, changes_between(old, manifest.instructions)


def tokens(task: Task) -> QuerySet[PromptToken]:
    """Tokens of a task, newest first."""
    return task.tokens.select_related("created_by")
