"""What the mining pages and the report show."""

from dataclasses import dataclass

from django.db.models import Count, QuerySet

from pld_app.models import Job, JobState
from rules.models import Cluster, MicroRule, MiningRun, MiningStage, RunState, Task


@dataclass(frozen=True)
class StageProgress:
    """One stage of a run: "done", "now", "next" or "stopped", with its counts while it is under way."""

    label: str
    state: str
    done: int
    total: int


def mining_runs(task: Task) -> QuerySet[MiningRun]:
    return task.mining_runs.select_related("created_by")


def stage_progress(run: MiningRun) -> list[StageProgress]:
    """Every stage in order; those before the present one are done."""
    stages = list(MiningStage)
    present = stages.index(MiningStage(run.stage))
    finished = run.state == RunState.SUCCEEDED
    rows = []
    for place, stage in enumerate(stages):
        if finished or place < present:
            state = "done"
        elif place > present:
            state = "next"
        else:
            state = "stopped" if run.is_final else "now"
        here = place == present and not finished
        rows.append(StageProgress(str(stage.label), state, run.done if here else 0, run.total if here else 0))
    return rows


def waiting_job(run: MiningRun) -> Job | None:
    """The run's job while it waits for a set time (a provider asked for it, or an attempt failed), with why."""
    if run.is_final:
        return None
    jobs = Job.objects.filter(kind="mining_run", subject_id=run.pk, state=JobState.QUEUED)
    return jobs.exclude(last_error="").first()


def clusters_of(run: MiningRun) -> QuerySet[Cluster]:
    """The clusters with the number of candidates each gave."""
    return run.clusters.annotate(candidates=Count("instructions")).order_by("number")


def failed_extractions(run: MiningRun) -> QuerySet[MicroRule]:
    return run.micro_rules.filter(text="").select_related("trace").order_by("trace_id")


def mining_report(run: MiningRun) -> dict[str, object]:
    """The run's figures with what they were measured on, ready for JSON.

    AMI is scikit-learn's adjusted mutual information against `metadata.yardstick` of the traces; None without one.
    """
    seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at and run.started_at else None
    return {
        "run": str(run),
        "state": run.state,
        "traces": run.micro_rules.count(),
        "seconds": seconds,
        "embedder": run.embedder.model if run.embedder else "",
        "teacher": run.teacher.model if run.teacher else "",
        "second_teacher": run.second_teacher.model if run.second_teacher else "",
        "parameters": run.parameters,
        **run.figures,
    }
