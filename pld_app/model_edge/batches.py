"""A batch from its plan to its last recorded reply, in steps that may be cut short and taken again.

What must not happen twice is starting it: that costs money. So the intent is written first (`submitting_at`), under a
key that the provider keeps with the batch. Whoever finds an intent without a batch waits until no request of the worker
before can be under way any more, asks the provider for a batch with that key, and starts one only if there is none.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import batched
from pathlib import Path

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from pld_app.errors import Refusal
from pld_app.model_edge.batch_client import BatchClient, BatchRefused, ProviderBatch
from pld_app.model_edge.budget import batch_price, price
from pld_app.model_edge.ledger import endpoint_config, reply_record
from pld_app.model_edge.replies import Attempt, read_error, read_success
from pld_app.model_edge.types import (
    CallReply,
    CallRequest,
    EndpointConfig,
    Outcome,
    estimated_output_tokens,
    estimated_prompt_tokens,
    request_hash,
    wire_body,
)
from pld_app.models import BatchState, ModelBatch, ModelBatchItem, ModelEndpoint

log = structlog.get_logger(__name__)

RECORD_ROWS = 200


@dataclass(frozen=True)
class Work:
    """What the owner of a batch brings: its questions again, by their subjects, and what its end means to it.

    `check` raises when this worker may not go on. `finished` is called in the transaction that closes the batch.
    """

    requests: Callable[[Sequence[str]], Iterable[CallRequest]]
    check: Callable[[], None]
    finished: Callable[[ModelBatch], None]


def batch_line(config: EndpointConfig, path: str, request: CallRequest) -> bytes:
    """One question as a line of the file, named by its hash."""
    line = {
        "custom_id": request_hash(config, request),
        "method": "POST",
        "url": path,
        "body": wire_body(config, request),
    }
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def worst_cost(endpoint: ModelEndpoint, config: EndpointConfig, request: CallRequest) -> Decimal:
    """The most this question can come to within a batch."""
    tokens = estimated_prompt_tokens(request), estimated_output_tokens(config, request)
    return batch_price(endpoint, price(endpoint, prompt_tokens=tokens[0], completion_tokens=tokens[1]))


def batch_advance(batch: ModelBatch, work: Work) -> timedelta | None:
    """Take the batch as far as it goes now; how long to wait before the next look, None once it is over.

    Raises ModelUnavailable and EndpointMisconfigured as the client does.
    """
    return _Advance(batch, work).run()


class _Advance:
    def __init__(self, batch: ModelBatch, work: Work) -> None:
        self.batch = batch
        self.work = work
        self.config = endpoint_config(batch.endpoint)
        self.client = BatchClient(self.config)

    def run(self) -> timedelta | None:
        batch = self.batch
        if batch.state == BatchState.PLANNED:
            wait = self._send()
            if wait is not None or batch.is_over:
                return wait
        if batch.state == BatchState.SENT:
            wait = self._poll()
            if wait is not None:
                return wait
        if batch.state == BatchState.ENDED:
            self._collect()
        return None

    def _save(self, *fields: str) -> None:
        self.work.check()
        self.batch.save(update_fields=fields)

    def _send(self) -> timedelta | None:
        """Hand over the file and have the provider start, once."""
        batch = self.batch
        if batch.cancel_requested_at is not None and batch.submitting_at is None:
            self._finish("Cancelled before it was sent.")
            return None
        try:
            if not batch.input_file:
                batch.input_file = self.client.find_file(self._name) or self._upload()
                self._save("input_file")
            found, wait = self._started()
        except BatchRefused as error:
            self._finish(str(error))
            return None
        if found is not None:
            batch.batch_id, batch.state, batch.sent_at = found.id, BatchState.SENT, timezone.now()
            batch.status = found.status
            self._save("batch_id", "state", "sent_at", "status")
        return wait

    def _started(self) -> tuple[ProviderBatch | None, timedelta | None]:
        """The provider's batch, or how long until it can be known whether there is one."""
        batch, now = self.batch, timezone.now()
        if batch.submitting_at is not None:
            settled_at = batch.submitting_at + timedelta(seconds=self.config.attempt_deadline_s)
            if now < settled_at:
                return None, settled_at - now
            found = self.client.find(str(batch.key))
            if found is not None:
                return found, None
            if batch.cancel_requested_at is not None:
                self._finish("Cancelled before it was sent.")
                return None, None
        batch.submitting_at = now
        self._save("submitting_at")
        return self.client.create(batch.input_file, str(batch.key)), None

    @property
    def _name(self) -> str:
        return f"pld-{self.batch.key}.jsonl"

    def _upload(self) -> str:
        with tempfile.TemporaryFile() as file:
            items = self.batch.items.order_by("pk").values_list("subject", "request_hash").iterator(chunk_size=2000)
            for some in batched(items, RECORD_ROWS):
                planned = dict(some)
                for request in self.work.requests(list(planned)):
                    # Another question by now, when the task's words were changed: nobody confirmed that one.
                    if request_hash(self.config, request) == planned[request.key]:
                        file.write(batch_line(self.config, self.client.path, request))
            if not file.tell():
                raise BatchRefused("The task was changed before the batch was sent.")
            file.seek(0)
            return self.client.upload(self._name, file)

    def _poll(self) -> timedelta | None:
        """Ask how far it is; None when it has ended."""
        batch = self.batch
        found = self.client.get(batch.batch_id)
        if batch.cancel_requested_at is not None and not found.is_final and found.status != "cancelling":
            with suppress(BatchRefused):  # it ended in this very moment
                found = self.client.cancel(batch.batch_id)
        batch.status = found.status
        if found.request_counts is not None:
            batch.answered, batch.failed = found.request_counts.completed, found.request_counts.failed
        if not found.is_final:
            self._save("status", "answered", "failed")
            return timedelta(seconds=settings.BATCH_POLL_S)
        batch.output_file, batch.error_file = found.output_file_id or "", found.error_file_id or ""
        batch.error = found.complaint
        batch.state = BatchState.ENDED
        self._save("status", "answered", "failed", "output_file", "error_file", "error", "state")
        return None

    def _collect(self) -> None:
        """Record every reply that is not recorded yet, then close the batch and have the provider forget its files."""
        files = [name for name in (self.batch.output_file, self.batch.error_file) if name]
        for name in files:
            with tempfile.TemporaryDirectory(prefix="pld-batch-") as folder:
                path = Path(folder) / "replies.jsonl"
                self.client.download(name, path)
                with path.open("rb") as lines:
                    for some in batched(_readable(lines), RECORD_ROWS):
                        self._record(some)
        self._finish("" if self.batch.status == "completed" else self.batch.error or f"The batch {self.batch.status}.")
        for name in (self.batch.input_file, *files):
            with suppress(Refusal):
                self.client.delete(name)

    @transaction.atomic
    def _record(self, lines: Sequence[Mapping[str, object]]) -> None:
        self.work.check()
        by_hash = {str(line.get("custom_id")): line for line in lines}
        # By subject: the question itself may be worded otherwise by now, but this is what was asked and paid for.
        items = {item.subject: item for item in self.batch.items.filter(request_hash__in=by_hash, call=None)}
        for request in self.work.requests(list(items)):
            item = items[request.key]
            attempt = _attempt(by_hash[item.request_hash], request, self.config)
            if attempt is not None:
                item.call_id = self._write(attempt, request, item.request_hash)
        ModelBatchItem.objects.bulk_update([item for item in items.values() if item.call_id], ["call"])

    def _write(self, attempt: Attempt, request: CallRequest, digest: str) -> int:
        reply = CallReply(
            request=request,
            outcome=attempt.outcome,
            text=attempt.text,
            model_returned=attempt.model_returned,
            prompt_tokens=attempt.prompt_tokens,
            completion_tokens=attempt.completion_tokens,
            attempts=1,
            status=attempt.status,
            error=attempt.error,
            raw=attempt.raw,
        )
        batch = self.batch
        row = reply_record(
            batch.endpoint,
            reply,
            scope=batch.scope,
            run=batch.run,
            digest=digest,
            cost=self._cost(reply),
            model=self.config.model,
        )
        return row.pk

    def _cost(self, reply: CallReply) -> Decimal:
        if reply.outcome is Outcome.HTTP_ERROR:
            return Decimal(0)
        if reply.prompt_tokens is None:  # without a count it may have been billed in full
            return worst_cost(self.batch.endpoint, self.config, reply.request)
        output = reply.completion_tokens or 0
        return batch_price(
            self.batch.endpoint,
            price(self.batch.endpoint, prompt_tokens=reply.prompt_tokens, completion_tokens=output),
        )

    @transaction.atomic
    def _finish(self, error: str) -> None:
        self.work.check()
        batch = self.batch
        replies = batch.items.filter(call__isnull=False)
        batch.answered = replies.filter(call__outcome=Outcome.OK).count()
        batch.failed = batch.requests - batch.answered
        batch.spent = replies.aggregate(sum=Sum("call__cost"))["sum"] or Decimal(0)
        batch.state, batch.error, batch.finished_at = BatchState.COLLECTED, error, timezone.now()
        batch.save(update_fields=["answered", "failed", "spent", "state", "error", "finished_at"])
        self.work.finished(batch)
        log.info("model_batch.over", batch=str(batch), answered=batch.answered, failed=batch.failed, error=error)


def _readable(lines: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    """The lines that are JSON objects; a question without one counts as unanswered."""
    for line in lines:
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                yield value


def _attempt(line: Mapping[str, object], request: CallRequest, config: EndpointConfig) -> Attempt | None:
    """How the question went, judged as a direct reply would be; None when the provider never asked it."""
    response = line.get("response")
    if not isinstance(response, Mapping):
        return None
    body = json.dumps(response.get("body")).encode()
    status = response.get("status_code")
    if status == 200:
        return read_success(body, request.body, config.api_key)
    return read_error(status if isinstance(status, int) and 0 <= status < 1000 else 0, body, None, config.api_key)
