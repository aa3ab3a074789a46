"""Telling the student's side what a channel serves now: a delivery row for each target, sent by a job.

A target is told only of what changed for it: the hash served before and after. The rows are written in the transaction
of the act, so that no change is untold and nothing is told that did not happen.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pld_app.canonical import canonical_json
from pld_app.jobs import job_enqueue
from pld_app.models import AuditEvent
from rules.models import ChannelName, Release, Task, WebhookDelivery
from rules.selectors.publishing import current_publication
from rules.selectors.rulesets import utc_text

JOB_KIND = "webhook"


def served_now(task_id: int) -> dict[str, Release | None]:
    """What each channel serves at this moment."""
    found = {channel.value: current_publication(task_id, channel) for channel in ChannelName}
    return {channel: one.release if one else None for channel, one in found.items()}


@contextmanager
def announced(task: Task, kind: str) -> Iterator[None]:
    """Run an act and tell the task's targets of every channel that serves something else after it.

    Must stand inside the act's transaction, under the task's lock. Without targets it costs one query.
    """
    if not task.webhooks.filter(retired_at=None).exists():
        yield
        return
    before = served_now(task.pk)
    yield
    after = served_now(task.pk)
    # The act's own event is the newest about this task in this transaction.
    event = AuditEvent.objects.filter(task_slug=task.slug).order_by("-pk")[:1].get()
    for channel in ChannelName:
        tell(task=task, kind=kind, channel=channel, before=before[channel], after=after[channel], event=event)


def tell(
    *, task: Task, kind: str, channel: str, before: Release | None, after: Release | None, event: AuditEvent
) -> None:
    """One delivery to each target, if the channel serves something else now."""
    if (before.pk if before else 0) == (after.pk if after else 0):
        return
    for target in task.webhooks.filter(retired_at=None):
        key = uuid.uuid4()
        body = {
            "schema": "pld-webhook/v1",
            "id": str(key),
            "kind": kind,
            "task": task.slug,
            "channel": channel,
            "before": _release(before),
            "after": _release(after),
            "event": event.pk,
            "at": utc_text(event.at),
        }
        delivery = WebhookDelivery.objects.create(target=target, key=key, kind=kind, body=canonical_json(body).decode())
        job_enqueue(kind=JOB_KIND, subject_id=delivery.pk, key=f"{JOB_KIND}:{delivery.pk}")


def _release(release: Release | None) -> dict[str, str | int] | None:
    if release is None:
        return None
    return {
        "version": release.version,
        "prompt_sha256": release.prompt_sha256,
        "manifest_sha256": release.manifest_sha256,
    }
