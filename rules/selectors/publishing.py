"""What a channel serves, and what the release pages show."""

from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet
from django.http import Http404

from rules.changes import Changes, changes_between
from rules.manifest import Manifest, manifest_read
from rules.models import ChannelName, PromptToken, Publication, PublicationKind, Release, RulesetStatus, Task


def publications_valid(task_id: int, channel: str) -> QuerySet[Publication]:
    """Publications a channel may serve, the one in force first.

    A withdrawn ruleset serves no more, and then the release that was there before does. A release that somebody rolled
    back from is not served again that way: it takes a new publication.
    """
    in_channel = Publication.objects.filter(task_id=task_id, channel=channel)
    target_was_there_before = in_channel.filter(release=OuterRef("release"), pk__lt=OuterRef(OuterRef("pk")))
    left_behind = in_channel.filter(
        Exists(target_was_there_before), kind=PublicationKind.ROLLBACK, pk__gt=OuterRef("pk")
    ).exclude(release=OuterRef("release"))
    return in_channel.filter(~Exists(left_behind), release__ruleset__status=RulesetStatus.SIGNED).order_by("-pk")


def current_publication(task_id: int, channel: str) -> Publication | None:
    """The publication in force, with its release and ruleset, or None: nothing is served."""
    # Nobody can have rolled back from the newest one, so it is in force unless its ruleset was withdrawn. The
    # whole condition is needed only then; to build and plan it costs more than all else the student asks for.
    in_channel = Publication.objects.filter(task_id=task_id, channel=channel)
    newest = in_channel.select_related("release__ruleset").order_by("-pk").first()
    if newest is None or newest.release.ruleset.status == RulesetStatus.SIGNED:
        return newest
    return publications_valid(task_id, channel).select_related("release__ruleset").first()


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

    @property
    def is_superseded(self) -> bool:
        """Whether the newest publication is not the one served, because its ruleset was withdrawn."""
        return (self.publication.pk if self.publication else 0) != self.newest_id


def channel_states(task: Task) -> list[ChannelState]:
    """Both channels, staging first. Four queries whatever the history."""
    releases = list(
        Release.objects.filter(task=task, ruleset__status=RulesetStatus.SIGNED).defer("prompt").order_by("-version")
    )
    history: dict[str, list[tuple[int, int]]] = {}
    for channel, pk, release in task.publications.order_by("pk").values_list("channel", "pk", "release_id"):
        history.setdefault(channel, []).append((pk, release))
    return [_channel_state(task, channel, releases, history) for channel in ChannelName]


def _channel_state(
    task: Task, channel: ChannelName, releases: list[Release], history: dict[str, list[tuple[int, int]]]
) -> ChannelState:
    current = publications_valid(task.pk, channel).select_related("release__ruleset", "actor").first()
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
    )


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
