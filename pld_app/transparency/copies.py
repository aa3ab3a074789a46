"""Copies of checkpoints outside the database: a folder of files, and a POST to another party's server.

Runs in the sealer's process after a checkpoint is committed, outside transactions. The note itself is signed, so
whoever receives it can check it with the public key alone; the token only tells the receiver whose post it is.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from pld_app.model_edge.addresses import AddressRefusedError
from pld_app.model_edge.transport import UnreachableError, guarded_post
from pld_app.model_edge.types import EndpointConfig, Secret
from pld_app.models import AuditSink, Checkpoint, CheckpointCopy
from pld_app.transparency.note import NoteError, ParsedCheckpoint, checkpoint_parse

log = structlog.get_logger(__name__)
_LONGEST_PAUSE_S = 600
_FILES_A_ROUND = 1000


class CopyFailed(Exception):
    """The copy did not arrive; it is tried again. The message holds no secret."""


class CopyDiffers(Exception):
    """Outside there is another checkpoint of this size than ours: one of the two logs is forged."""


class Sink(Protocol):
    """One place outside. `put` returns where the copy is, raises CopyFailed, or CopyDiffers; it may be repeated."""

    @property
    def name(self) -> str: ...

    @property
    def takes_every(self) -> bool:
        """Else only the newest: a later checkpoint vouches for all before it."""

    def put(self, checkpoint: Checkpoint) -> str: ...


@dataclass(frozen=True)
class FolderSink:
    """A file per checkpoint, never overwritten, on disk before it counts. Best a folder on write-once storage."""

    folder: Path
    name: str = "folder"
    takes_every: bool = True

    def put(self, checkpoint: Checkpoint) -> str:
        path = self.folder / f"checkpoint-{checkpoint.size:012d}-{checkpoint.key.key_id}.txt"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.exists() and self._same(path, checkpoint):
                return path.name
            # Whole or not at all: a kill while writing leaves a file under another name.
            part = path.with_suffix(".part")
            for left in self.folder.glob("*.part"):  # by a sealer that was killed while it wrote
                left.unlink(missing_ok=True)
            with part.open("x", encoding="utf-8") as handle:
                handle.write(checkpoint.note)
                handle.flush()
                os.fsync(handle.fileno())
            os.link(part, path)  # unlike a rename, refuses to replace a file
            part.unlink()
            descriptor = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise CopyFailed(f"{type(error).__name__}: {error.strerror}") from error
        return path.name

    @staticmethod
    def _same(path: Path, checkpoint: Checkpoint) -> bool:
        if path.read_text(encoding="utf-8", errors="replace") == checkpoint.note:
            return True
        raise CopyDiffers(f"{path.name} outside is another checkpoint of size {checkpoint.size} than ours.")

    def newest(self) -> ParsedCheckpoint | None:
        """The copy with the largest size, signature not verified yet. Raises CopyFailed when it cannot be read."""
        try:
            names = sorted(self.folder.glob("checkpoint-*.txt"))
            return checkpoint_parse(names[-1].read_text(encoding="utf-8")) if names else None
        except (OSError, UnicodeError, NoteError) as error:
            raise CopyFailed(f"The newest copy in the folder cannot be read: {error}") from error


@dataclass(frozen=True)
class PostSink:
    """POST of the note to one address, by the rules for outgoing requests: checked address, no redirect, no proxy."""

    url: str
    token: Secret
    name: str = "post"
    takes_every: bool = False

    def put(self, checkpoint: Checkpoint) -> str:
        host = urlsplit(self.url).hostname or ""
        endpoint = EndpointConfig(
            name="copies of the audit log",
            base_url=self.url,
            model="",
            api_key=self.token,
            concurrency=1,
            allow_private=host in settings.ENDPOINT_ALLOW_PRIVATE,
        )
        try:
            status, _body = guarded_post(endpoint, self.url, checkpoint.note.encode(), "text/plain")
        except (AddressRefusedError, UnreachableError) as error:
            raise CopyFailed(str(error)) from error
        if not 200 <= status < 300:
            raise CopyFailed(f"{host} answered with status {status}")
        return f"{host}, status {status}"


def sinks_configured() -> list[Sink]:
    sinks: list[Sink] = []
    if settings.AUDIT_COPY_DIR:
        sinks.append(FolderSink(Path(settings.AUDIT_COPY_DIR)))
    if settings.AUDIT_COPY_URL:
        sinks.append(PostSink(settings.AUDIT_COPY_URL, Secret(settings.AUDIT_COPY_TOKEN)))
    return sinks


def copies_send(sinks: Iterable[Sink]) -> bool:
    """Bring every place up to date; returns whether all are. A place that fails is left alone for 10 s to 10 min.

    Raises CopyDiffers when a place holds something else than we do.
    """
    arrived = [_sink_serve(sink) for sink in sinks]  # each is tried, whatever became of the one before
    return all(arrived)


def _sink_serve(sink: Sink) -> bool:
    state, _created = AuditSink.objects.get_or_create(name=sink.name)
    pending = _pending(sink)
    if not pending:
        return True
    if _rests(state):
        return False
    for checkpoint in pending:
        try:
            place = sink.put(checkpoint)
        except CopyFailed as error:
            log.warning("audit.copy_failed", sink=sink.name, size=checkpoint.size, error=str(error))
            AuditSink.objects.filter(name=sink.name).update(
                failures=F("failures") + 1, last_error=str(error)[:300], last_try_at=Now()
            )
            return False
        _copied(checkpoint, sink.name, place)
    return True


def _pending(sink: Sink) -> list[Checkpoint]:
    """The checkpoints that are to go there, oldest first."""
    newest = Checkpoint.objects.order_by("-pk").first()
    if newest is None:
        return []
    missing = Checkpoint.objects.exclude(copies__sink=sink.name).select_related("key").order_by("pk")
    return list(missing[:_FILES_A_ROUND]) if sink.takes_every else list(missing.filter(pk=newest.pk))


def _rests(state: AuditSink) -> bool:
    if not state.failures or state.last_try_at is None:
        return False
    pause = min(_LONGEST_PAUSE_S, 5 * 2 ** min(state.failures, 8))
    return state.last_try_at + timedelta(seconds=pause) > _database_now()


def _database_now() -> datetime:
    now: datetime = AuditSink.objects.annotate(now=Now()).values_list("now", flat=True)[0]
    return now


@transaction.atomic
def _copied(checkpoint: Checkpoint, sink: str, place: str) -> None:
    CheckpointCopy.objects.get_or_create(checkpoint=checkpoint, sink=sink, defaults={"place": place[:300]})
    AuditSink.objects.filter(name=sink).update(failures=0, last_error="", last_try_at=Now(), last_ok_at=Now())
