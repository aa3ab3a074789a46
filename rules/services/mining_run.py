"""What the stages of a run share: its lease, its progress and its end."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.models import Sum
from django.utils import timezone

from pld_app.audit import Json, audit_record
from pld_app.jobs import Lease, hint_send
from pld_app.model_edge import CallRequest
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from pld_app.models import Job, JobState, ModelEndpoint
from rules.mining.deidentify import Vocabulary
from rules.models import MiningPart, MiningRun, MiningStage, RunState
from rules.prompts import VERSION
from rules.schemas import MiningParameters
from rules.services.mining_budget import RunBudget
from rules.services.mining_flags import task_vocabulary
from rules.transitions import mining_run_move

if TYPE_CHECKING:
    # Only named here: what it needs of scikit-learn would slow the start of every process.
    from rules.services.mining_vectors import Mined

RUN_KIND = "mining_run"
LOCAL_EMBEDDING = "TF-IDF and truncated SVD, 64 dimensions, computed here"
# Mining asks each question once for all runs, so its calls share one scope of the ledger.
CALL_SCOPE = ""
# However fast the calls are, the database is asked a few times a second whether to stop.
ASK_STOP_S = 0.2


class Cancelled(Exception):
    """A person asked the run to stop."""


class SliceOver(Exception):
    """This worker's turn is over; the run goes on in the next one."""


@dataclass(frozen=True)
class Part:
    """What one endpoint is asked by one worker: the items whose number leaves `rest` when divided by `of`."""

    endpoint: ModelEndpoint
    rest: int = 0
    of: int = 1

    def holds(self, number: int) -> bool:
        return number % self.of == self.rest


class RunContext:
    """One worker's work on one run. `lease` is None only when no worker holds the run any more.

    `part` is the row of the part it works on, where several workers share the stage.
    """

    def __init__(self, run: MiningRun, lease: Lease | None) -> None:
        self.run = run
        self.lease = lease
        self.part: MiningPart | None = None
        self.parameters = MiningParameters.model_validate(run.parameters)
        self.mined: Mined | None = None
        self._asked_at = 0.0

    def check_lease(self) -> None:
        if self.lease is not None:
            self.lease.check()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the traces of the task have in common, so that it identifies none of them."""
        return task_vocabulary(self.run.task)

    @property
    def slice_over(self) -> bool:
        return self.lease is not None and self.lease.slice_over

    def should_stop(self) -> bool:
        """Whether to make no further model call: cancelled, lease lost, or the time slice is over."""
        if self.lease is not None and (self.lease.lost.is_set() or self.lease.slice_over):
            return True
        if time.monotonic() - self._asked_at < ASK_STOP_S:
            return False
        self._asked_at = time.monotonic()
        return self._is_cancelled()

    def _is_cancelled(self) -> bool:
        return MiningRun.objects.filter(pk=self.run.pk, cancel_requested_at__isnull=False).exists()

    def check_cancelled(self) -> None:
        """Raise Cancelled when a person asked for it, LeaseLost when another worker took over."""
        self.check_lease()
        if self._is_cancelled():
            raise Cancelled

    def check_going_on(self) -> None:
        """Raise what ended a stream of calls early, if anything did: Cancelled, LeaseLost or SliceOver."""
        self.check_cancelled()
        if self.slice_over:
            raise SliceOver

    def stage_begin(self, stage: MiningStage) -> None:
        if self.run.stage != stage:
            self.run.stage = stage
            self.run.done = self.run.total = 0
            self.run.save(update_fields=["stage", "done", "total"])

    def progress(self, done: int, total: int) -> None:
        """Show how far the stage is; also tells the job that this attempt gets on."""
        self.run.done, self.run.total = done, total
        MiningRun.objects.filter(pk=self.run.pk).update(done=done, total=total)
        if self.lease is not None:
            self.lease.progressed()

    def part_progress(self, done: int, total: int) -> None:
        """Show how far this worker is, added to what the others have done."""
        if self.part is None:
            self.progress(done, total)
            return
        MiningPart.objects.filter(pk=self.part.pk).update(done=done, total=total)
        every = self.run.parts.filter(stage=self.part.stage).aggregate(done=Sum("done"), total=Sum("total"))
        self.progress(every["done"], every["total"])

    def calls(self, endpoint: ModelEndpoint, requests: Iterable[CallRequest]) -> Iterator[RecordedCall]:
        """Answers from the ledger, or by calls within the run's budget. Raises as `recorded_calls` does."""
        budget = RunBudget(self.run.pk)
        found = recorded_calls(
            endpoint,
            requests,
            scope=CALL_SCOPE,
            should_stop=self.should_stop,
            budget=budget,
            run=str(self.run),
        )
        try:
            with closing(found):
                for recorded in found:
                    if self.lease is not None and recorded.is_new:
                        self.lease.progressed()
                    yield recorded
        finally:
            budget.flush()

    def provenance(self) -> dict[str, object]:
        """Where a candidate of this run came from, the same for all of them."""
        run = self.run
        return {
            "run": run.number,
            "parameters": run.parameters,
            "prompt_version": VERSION,
            "embedding": run.embedder.model if run.embedder else LOCAL_EMBEDDING,
            "teacher": run.teacher.model if run.teacher else "",
            "second_teacher": run.second_teacher.model if run.second_teacher else "",
        }


@transaction.atomic
def run_finish(context: RunContext, state: RunState, error: str, figures: dict[str, object] | None = None) -> None:
    """Close the run, with its one event; in the transaction of the caller where there is one."""
    run = context.run
    context.check_lease()
    mining_run_move(run, state)
    run.error = error
    run.finished_at = timezone.now()
    run.figures = run.figures | (figures or {})
    run.save(update_fields=["state", "error", "finished_at", "figures"])
    data: dict[str, Json] = {
        "state": state.value,
        "error": error,
        "candidates": int(str(run.figures.get("candidates", 0))),
    }
    audit_record("mining.finished", actor=None, subject=run, task_slug=run.task.slug, data=data)


def run_wake(run_id: int, *, within: timedelta) -> None:
    """Have a run that waits no longer than this look again now; not one that waits longer, for a provider."""
    now = timezone.now()
    waiting = Job.objects.filter(kind=RUN_KIND, subject_id=run_id, state=JobState.QUEUED, run_after__lte=now + within)
    for pk in list(waiting.values_list("pk", flat=True)):
        waiting.filter(pk=pk).update(run_after=now)
        transaction.on_commit(partial(hint_send, pk), robust=True)
