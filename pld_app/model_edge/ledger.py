"""Model calls that are recorded, so that an answer is paid for once and a run continues where it stopped."""

import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import batched
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.utils.translation import gettext as _
from numpy.typing import NDArray

from pld_app.canonical import sha256_hex
from pld_app.model_edge.budget import Budget, LocalBudget, price
from pld_app.model_edge.dispatch import CallStream
from pld_app.model_edge.errors import BudgetExhausted, EndpointMisconfigured
from pld_app.model_edge.types import (
    CallReply,
    CallRequest,
    ChatBody,
    EndpointConfig,
    Outcome,
    Secret,
    StructuredOutput,
    Vectors,
    WireApi,
    estimated_output_tokens,
    estimated_prompt_tokens,
    request_hash,
)
from pld_app.models import EndpointKind, ModelCall, ModelEndpoint

log = structlog.get_logger(__name__)

LOOKUP_BATCH = 200
# Another worker's answer to the same question came first: this one was paid for too, and is not the answer used.
DUPLICATE = "duplicate"
# Outcomes that a provider does not bill.
_FREE = frozenset({Outcome.HTTP_ERROR, Outcome.CONNECTION})


@dataclass(frozen=True, kw_only=True)
class RecordedCall:
    """One request and what the ledger holds for it.

    `reused` says that no call was made now. `call_id` is the ModelCall row; None for a call that was never sent and
    for a failure shared with an equal request of the same stream. `vectors` is float32 of shape (inputs, dimensions).
    """

    request: CallRequest
    outcome: Outcome
    call_id: int | None
    reused: bool = False
    text: str = field(default="", repr=False)
    vectors: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    model_returned: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: Decimal = Decimal(0)
    attempts: int = 0
    error: str = ""
    retry_after_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is Outcome.OK

    @property
    def is_new(self) -> bool:
        """A call was made now and is on record: it is not made again, so a worker killed right after it has got on."""
        return self.call_id is not None and not self.reused


def key_variable_allowed(name: str) -> bool:
    """Whether an endpoint may name this variable: it must look like a provider's key and be none of our own secrets."""
    looks_like_key = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None and re.search("KEY|TOKEN", name.upper())
    return bool(looks_like_key) and (not name.upper().startswith("PLD_") or name.upper().endswith("_API_KEY"))


def _key_of(endpoint: ModelEndpoint) -> Secret:
    name = endpoint.api_key_env
    if not name:
        return Secret("")
    if not key_variable_allowed(name):
        text = _("%(endpoint)s names %(name)s as its key, which is not a provider's key. Nothing was sent.")
        raise EndpointMisconfigured(text % {"endpoint": endpoint.name, "name": name})
    value = os.environ.get(name, "").strip()
    if not value:
        text = _("The environment variable %(name)s with the key of %(endpoint)s is not set where the workers run.")
        raise EndpointMisconfigured(text % {"endpoint": endpoint.name, "name": name})
    return Secret(value)


def endpoint_config(endpoint: ModelEndpoint, *, with_key: bool = True) -> EndpointConfig:
    """The row with its key from the environment. Raises EndpointMisconfigured if it is inactive or has no key.

    `with_key` False is for what sends nothing: only the workers need to have the key.
    """
    if not endpoint.is_active:
        raise EndpointMisconfigured(_("%(name)s is switched off.") % {"name": endpoint.name})
    host = urlsplit(endpoint.base_url).hostname or ""
    return EndpointConfig(
        name=endpoint.slug,
        base_url=endpoint.base_url,
        model=endpoint.model,
        api_key=_key_of(endpoint) if with_key else Secret(""),
        kind="embedding" if endpoint.kind == EndpointKind.EMBEDDING else "chat",
        api=cast("WireApi", endpoint.api),
        concurrency=endpoint.concurrency,
        requests_per_minute=endpoint.requests_per_minute,
        tokens_per_minute=endpoint.tokens_per_minute,
        timeout_s=float(endpoint.timeout_s),
        max_output_tokens=endpoint.max_output_tokens,
        structured_output=cast("StructuredOutput", endpoint.structured_output),
        allow_private=host in settings.ENDPOINT_ALLOW_PRIVATE,
        breaker_open_s=settings.ENDPOINT_BREAKER_S,
        shared_limits=_limits_key(endpoint),
    )


def _limits_key(endpoint: ModelEndpoint) -> str:
    """Names the server and model, in this installation: whoever mends a wrong address begins with fresh limits."""
    place = f"{endpoint.base_url} {endpoint.model} {endpoint.created_at.timestamp()}"
    return f"{connection.settings_dict['NAME']}:{endpoint.pk}:{sha256_hex(place)[:12]}"


def _pack(vectors: Vectors | None) -> tuple[bytes | None, int]:
    """Little-endian float32, row by row, and the number of dimensions."""
    if vectors is None:
        return None, 0
    return np.asarray(vectors, dtype="<f4").tobytes(), len(vectors[0])


def _unpack(packed: bytes | memoryview | None, dimensions: int) -> NDArray[np.float32] | None:
    if packed is None:
        return None
    return np.frombuffer(bytes(packed), dtype="<f4").reshape(-1, dimensions).astype(np.float32)


def _prompt_sha256(request: CallRequest) -> str:
    """Hash of the instructions to the model without the item: its first system message. Empty for embeddings."""
    if not isinstance(request.body, ChatBody):
        return ""
    first = next((m.content for m in request.body.messages if m.role == "system"), "")
    return sha256_hex(first) if first else ""


def recalled(scope: str, hashes: Sequence[str]) -> dict[str, ModelCall]:
    """The recorded answers among these request hashes."""
    rows = ModelCall.objects.filter(scope=scope, request_hash__in=hashes, outcome=ModelCall.OK).defer("raw_reply")
    return {row.request_hash: row for row in rows}


def _from_row(
    request: CallRequest, row: ModelCall, *, reused: bool, retry_after_s: float | None = None
) -> RecordedCall:
    return RecordedCall(
        request=request,
        outcome=Outcome(row.outcome),
        call_id=row.pk,
        reused=reused,
        text=row.text,
        vectors=_unpack(row.vectors, row.vector_dimensions),
        model_returned=row.model_returned,
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        cost=row.cost,
        attempts=row.attempts,
        error=row.error,
        retry_after_s=retry_after_s,
    )


def _statement_of_its_own() -> AbstractContextManager[object]:
    """One INSERT is a transaction by itself, without the round trips of BEGIN and COMMIT; inside one, a savepoint."""
    return transaction.atomic() if connection.in_atomic_block else nullcontext()


@dataclass
class _Pending:
    """A call under way: its hash, what was set aside for it, and equal requests that wait for its answer."""

    hash: str
    reserved: Decimal
    followers: list[CallRequest] = field(default_factory=list)


class _LedgerRun:
    def __init__(
        self, endpoint: ModelEndpoint, config: EndpointConfig, *, scope: str, run: str, budget: Budget
    ) -> None:
        self.endpoint = endpoint
        self.config = config
        self.scope = scope
        self.name = run[:120]
        self.budget = budget
        self.known: dict[str, ModelCall] = {}
        self.pending: dict[int, _Pending] = {}  # by identity of the request, which the reply brings back
        self.by_hash: dict[str, _Pending] = {}
        self.may_continue = True
        self.made = self.reused = self.failed = 0

    def recall(self, hashes: Sequence[str]) -> None:
        """Load the recorded answers of the next batch, in one query."""
        self.known = recalled(self.scope, hashes)

    def worst_case(self, request: CallRequest) -> Decimal:
        tokens = estimated_prompt_tokens(request), estimated_output_tokens(self.config, request)
        return price(self.endpoint, prompt_tokens=tokens[0], completion_tokens=tokens[1])

    def begin(self, request: CallRequest, digest: str, stream: CallStream) -> None:
        reserved = self.worst_case(request)
        self.budget.reserve(reserved)
        pending = _Pending(digest, reserved)
        self.pending[id(request)] = self.by_hash[digest] = pending
        stream.submit(request)

    def record_all(self, replies: Iterable[CallReply]) -> Iterator[RecordedCall]:
        for reply in replies:
            yield from self.record(reply)

    def record(self, reply: CallReply) -> Iterator[RecordedCall]:
        """Write the reply's row, then hand it to its request and to the equal ones that waited."""
        pending = self.pending.pop(id(reply.request))
        del self.by_hash[pending.hash]
        cost = self._cost(reply, pending.reserved)
        row = self._write(reply, pending.hash, cost) if reply.attempts else None
        self.budget.settle(reserved=pending.reserved, actual=cost, calls=reply.attempts)
        self._count(reply)
        if row is None:
            for request in (reply.request, *pending.followers):
                yield RecordedCall(request=request, outcome=reply.outcome, call_id=None, error=reply.error)
            return
        if reply.ok:
            self.known[pending.hash] = row
        yield _from_row(reply.request, row, reused=False, retry_after_s=reply.retry_after_s)
        for request in pending.followers:
            yield _from_row(request, row, reused=True, retry_after_s=reply.retry_after_s)

    def _cost(self, reply: CallReply, reserved: Decimal) -> Decimal:
        if reply.prompt_tokens is not None:
            output = reply.completion_tokens or 0
            return price(self.endpoint, prompt_tokens=reply.prompt_tokens, completion_tokens=output)
        # Without a count it may have been billed in full, unless the provider never got to answering.
        return Decimal(0) if reply.attempts == 0 or reply.outcome in _FREE else reserved

    def _count(self, reply: CallReply) -> None:
        self.made += reply.attempts > 0
        self.failed += not reply.ok
        if not reply.ok and reply.attempts:
            log.warning(
                "model_call.failed",
                endpoint=self.endpoint.slug,
                outcome=reply.outcome.value,
                status=reply.status,
                attempts=reply.attempts,
                latency_ms=reply.latency_ms,
            )

    def _write(self, reply: CallReply, digest: str, cost: Decimal) -> ModelCall:
        return reply_record(
            self.endpoint, reply, scope=self.scope, run=self.name, digest=digest, cost=cost, model=self.config.model
        )


def reply_record(
    endpoint: ModelEndpoint, reply: CallReply, *, scope: str, run: str, digest: str, cost: Decimal, model: str
) -> ModelCall:
    """The row that answers this request: the new one, or the one another worker wrote in the meantime."""
    row = _row(endpoint, reply, scope=scope, run=run, digest=digest, cost=cost, model=model)
    try:
        with _statement_of_its_own():
            row.save(force_insert=True)
    except IntegrityError:
        if not reply.ok:
            raise
        duplicate = _row(endpoint, reply, scope=scope, run=run, digest=digest, cost=cost, model=model)
        duplicate.outcome = DUPLICATE
        duplicate.save(force_insert=True)
        return ModelCall.objects.get(scope=scope, request_hash=digest, outcome=ModelCall.OK)
    return row


def _row(
    endpoint: ModelEndpoint, reply: CallReply, *, scope: str, run: str, digest: str, cost: Decimal, model: str
) -> ModelCall:
    vectors, dimensions = _pack(reply.vectors)
    return ModelCall(
        endpoint=endpoint,
        scope=scope,
        run=run,
        purpose=reply.request.purpose[:40],
        subject=reply.request.key[:80],
        request_hash=digest,
        prompt_sha256=_prompt_sha256(reply.request),
        model_requested=model,
        model_returned=reply.model_returned,
        outcome=reply.outcome.value,
        http_status=reply.status,
        attempts=reply.attempts,
        prompt_tokens=reply.prompt_tokens or 0,
        completion_tokens=reply.completion_tokens or 0,
        cost=cost,
        latency_ms=reply.latency_ms,
        text=reply.text,
        vectors=vectors,
        vector_dimensions=dimensions,
        raw_reply=reply.raw,
        error=reply.error,
    )


def _begin_within_budget(
    run: _LedgerRun, stream: CallStream, request: CallRequest, digest: str
) -> Generator[RecordedCall]:
    """Start the call. While reservations of calls under way fill the budget, wait for what they really cost."""
    while stream.still_open():
        try:
            run.begin(request, digest, stream)
        except BudgetExhausted:
            if not run.pending:
                raise
            yield from run.record_all(stream.next_reply())
        else:
            return
    run.may_continue = False


def _answered_or_called(run: _LedgerRun, stream: CallStream, batch: Sequence[CallRequest]) -> Generator[RecordedCall]:
    """Answer a batch from the ledger or by calls, as far as the stream stays open."""
    digests = [request_hash(run.config, request) for request in batch]
    run.recall(digests)
    for request, digest in zip(batch, digests, strict=True):
        if digest not in run.known and digest not in run.by_hash:
            yield from run.record_all(stream.room())
        # The replies just recorded may have brought the answer.
        if digest in run.known:
            run.reused += 1
            yield _from_row(request, run.known[digest], reused=True)
        elif digest in run.by_hash:
            run.by_hash[digest].followers.append(request)
        else:
            yield from _begin_within_budget(run, stream, request, digest)
        if not run.may_continue:
            return


def recorded_calls(
    endpoint: ModelEndpoint,
    requests: Iterable[CallRequest],
    *,
    scope: str,
    should_stop: Callable[[], bool],
    budget: Budget | None = None,
    run: str = "",
) -> Generator[RecordedCall]:
    """Answer each request from the ledger if it holds an answer for (scope, request), else call and record.

    Yields in order of completion. A row is written in its own short transaction before its reply is yielded, so a
    killed process repeats at most `endpoint.concurrency` calls. Failed calls are recorded, count for nothing later
    and may be tried again. Requests are read in batches of 200, each looked up with one query; equal requests in one
    stream make one call. A stop leaves requests without a reply; calls not yet sent come back as cancelled with
    `call_id` None. `run` names who pays, for the ledger's pages. Call it outside any transaction.

    After the replies still owed it raises BudgetExhausted (the next call could exceed the budget) or ModelUnavailable
    (the endpoint cannot be used now; `retry_after_s` says when to come back). Raises EndpointMisconfigured at once
    for an inactive endpoint, a missing key or an address that is not allowed.
    """
    config = endpoint_config(endpoint)
    work = _LedgerRun(endpoint, config, scope=scope, run=run, budget=budget or LocalBudget())
    over_budget: BudgetExhausted | None = None
    with CallStream(work.config, should_stop=should_stop) as stream:
        try:
            for batch in batched(requests, LOOKUP_BATCH):
                yield from _answered_or_called(work, stream, batch)
                if not (work.may_continue and stream.still_open()):
                    break
        except BudgetExhausted as error:
            over_budget = error
        yield from work.record_all(stream.drain())
        log.info("model_calls.ended", endpoint=endpoint.slug, made=work.made, reused=work.reused, failed=work.failed)
        if over_budget is not None:
            raise over_budget
        if stream.unavailable is not None:
            raise stream.unavailable
