"""Releases and what the channels point at."""

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext as _

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, WrongState
from pld_app.models import Reauthentication, Role, User
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import Stale
from rules.models import ChannelName, Publication, PublicationKind, Release, Ruleset, RulesetStatus, Task
from rules.selectors import publishing as selectors
from rules.selectors.gates import publish_refusal
from rules.services.announcing import announced
from rules.services.refusals import database_refusals
from rules.services.rulesets import ruleset_lock
from rules.services.withdrawing import ruleset_withdraw as ruleset_withdraw  # noqa: PLC0414  # beside what it undoes


@database_refusals()
@transaction.atomic
def release_create(*, ruleset_id: int, signatory: User) -> Release:
    """Give a signed ruleset the next version of its task. Raises WrongState when it is not signed or has a release."""
    require_role(signatory, Role.SIGNATORY)
    task_id = Ruleset.objects.values_list("task_id", flat=True).get(pk=ruleset_id)
    # The same order of locks as the database's own guard: task, then ruleset.
    task = Task.objects.select_for_update().get(pk=task_id)
    ruleset = ruleset_lock(ruleset_id)
    if ruleset.status != RulesetStatus.SIGNED:
        raise WrongState(_("Only a signed ruleset can be released."))
    version = 1 + task.releases.count()
    data: dict[str, Json] = {
        "version": version,
        "manifest_sha256": ruleset.manifest_sha256,
        "prompt_sha256": ruleset.prompt_sha256,
    }
    event = audit_record("release.created", actor=signatory, subject=ruleset, task_slug=task.slug, data=data)
    return Release.objects.create(
        task=task,
        version=version,
        ruleset=ruleset,
        manifest_sha256=ruleset.manifest_sha256,
        prompt=ruleset.prompt,
        prompt_sha256=ruleset.prompt_sha256,
        created_by=signatory,
        event=event,
    )


@dataclass(frozen=True, kw_only=True)
class _Move:
    """A channel's pointer on its way to a release."""

    kind: PublicationKind
    release_id: int
    channel: str
    actor: User
    expected_newest: int | None
    reason: str = ""


def release_publish(
    *, release_id: int, channel: str, actor: User, proof: Proof, expected_newest: int | None = None
) -> Publication:
    """Point a channel at a release, after proving again who one is.

    `expected_newest` is the key of the newest publication the person saw in the channel (0: none; None: not checked);
    another one raises Stale.
    """
    kind = PublicationKind.PUBLISH
    return _move_channel(
        _Move(kind=kind, release_id=release_id, channel=channel, actor=actor, expected_newest=expected_newest),
        proof,
    )


def release_rollback(
    *, release_id: int, channel: str, actor: User, proof: Proof, reason: str, expected_newest: int | None = None
) -> Publication:
    """Point a channel back at a release that was in it before, with reason and proof; else as `release_publish`."""
    if not reason.strip():
        raise InvalidInput(_("Say why you roll back."))
    move = _Move(
        kind=PublicationKind.ROLLBACK,
        release_id=release_id,
        channel=channel,
        actor=actor,
        expected_newest=expected_newest,
        reason=reason.strip()[:300],
    )
    return _move_channel(move, proof)


def _move_channel(move: _Move, proof: Proof) -> Publication:
    require_role(move.actor, Role.SIGNATORY)
    if move.channel not in ChannelName.values:
        raise InvalidInput(_("There is no such channel."))
    release = Release.objects.select_related("task").get(pk=move.release_id)
    # Looked at before the proof is asked for, and again when the channel is locked.
    _require_news(release.task, move, selectors.current_publication(release.task_id, move.channel))
    _require_gates(move, release)
    proved = reauthenticate(
        actor=move.actor,
        proof=proof,
        purpose="publish" if move.kind == PublicationKind.PUBLISH else "roll back",
        subject=release,
        content_sha256=release.manifest_sha256,
        task_slug=release.task.slug,
    )
    return _publication_create(move, release, proved)


@database_refusals()
@transaction.atomic
def _publication_create(move: _Move, release: Release, proved: Reauthentication) -> Publication:
    task = Task.objects.select_for_update().get(pk=release.task_id)
    # Locked so that a withdrawal at the same moment either comes first and is seen, or waits.
    ruleset = ruleset_lock(release.ruleset_id)
    if ruleset.status != RulesetStatus.SIGNED:
        raise WrongState(_("The ruleset of this release was withdrawn. Publish another release."))
    before = selectors.current_publication(task.pk, move.channel)
    _require_news(task, move, before)
    _require_gates(move, release)
    data: dict[str, Json] = {
        "channel": move.channel,
        "version": release.version,
        "prompt_sha256": release.prompt_sha256,
        "before": before.release.version if before else None,
        "reason": move.reason,
        "method": proved.method,
    }
    action = "release.published" if move.kind == PublicationKind.PUBLISH else "release.rolled_back"
    with announced(task, "published" if move.kind == PublicationKind.PUBLISH else "rolled_back"):
        event = audit_record(action, actor=move.actor, subject=release, task_slug=task.slug, data=data)
        return Publication.objects.create(
            task=task,
            channel=move.channel,
            release=release,
            kind=move.kind,
            reason=move.reason,
            actor=move.actor,
            actor_name=str(move.actor),
            reauthentication=proved,
            method=proved.method,
            authenticated_at=proved.at,
            event=event,
        )


def _require_gates(move: _Move, release: Release) -> None:
    """A rollback is not asked for gates: it is how a bad prompt is taken back."""
    refusal = publish_refusal(release, move.channel) if move.kind == PublicationKind.PUBLISH else ""
    if refusal:
        raise WrongState(refusal)


def _require_news(task: Task, move: _Move, before: Publication | None) -> None:
    in_channel = task.publications.filter(channel=move.channel).order_by("-pk")
    newest = in_channel.values_list("pk", flat=True).first() or 0
    if move.expected_newest is not None and newest != move.expected_newest:
        raise Stale(_("This channel moved since you opened the page. Look at what it serves now and repeat."))
    if before is not None and before.release_id == move.release_id and before.pk == newest:
        raise WrongState(_("This channel already serves this release."))
