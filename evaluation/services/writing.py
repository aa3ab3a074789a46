"""Predictions go to the database in batches, and a run that should stop finds out between two calls."""

import time
from collections.abc import Callable

from django.db import transaction

from evaluation.models import Ablation, EvaluationRun, Prediction, ResolutionLoop
from pld_app.jobs import Lease

# What a stream of calls does not wait for: rows that are buffered, and the question whether to stop.
FLUSH_S = 0.5
ASK_STOP_S = 0.2
BATCH = 200


class Cancelled(Exception):
    """A person asked the run to stop."""


class SliceOver(Exception):
    """This worker's turn is over; the run goes on in the next one."""


class Writer:
    """Writes predictions in small batches. What a kill takes from the buffer is in the ledger and is not paid again."""

    def __init__(self, run: EvaluationRun, lease: Lease, gold: dict[int, str], *, done: int) -> None:
        self.run = run
        self.lease = lease
        self.gold = gold
        self.done = done
        self._rows: list[Prediction] = []
        self._flushed_at = time.monotonic()

    def add(self, prediction: Prediction) -> None:
        prediction.gold = self.gold[prediction.example_id]
        self._rows.append(prediction)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        if len(self._rows) >= BATCH or time.monotonic() - self._flushed_at > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        self._flushed_at = time.monotonic()
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        with transaction.atomic():
            self.lease.check()
            # A worker that lost its lease a moment ago may have written some of them: the same answers of the ledger.
            Prediction.objects.bulk_create(rows, ignore_conflicts=True)
            self.done += len(rows)
            EvaluationRun.objects.filter(pk=self.run.pk).update(done=self.done, error="")
        self.lease.progressed()


class StopQuestion:
    """Whether to make no further call; the database is asked a few times a second, however fast the calls are."""

    def __init__(
        self, run: EvaluationRun | Ablation | ResolutionLoop, lease: Lease, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self.run = run
        self.lease = lease
        self.meanwhile = meanwhile
        self._asked_at = 0.0
        self._cancelled = False

    def should_stop(self) -> bool:
        self.meanwhile()
        if self.lease.lost.is_set() or self.lease.slice_over:
            return True
        if not self._cancelled and time.monotonic() - self._asked_at > ASK_STOP_S:
            self._asked_at = time.monotonic()
            self._cancelled = self._is_cancelled()
        return self._cancelled

    def check(self) -> None:
        """Raise what ended a stream of calls early, if anything did: LeaseLost, Cancelled or SliceOver."""
        self.lease.check()
        if self._is_cancelled():
            raise Cancelled
        if self.lease.slice_over:
            raise SliceOver

    def _is_cancelled(self) -> bool:
        rows = type(self.run)._default_manager
        return rows.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()
