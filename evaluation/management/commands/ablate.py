"""`manage.py ablate TASK`: leave each instruction of a run's prompt out in turn; --inline runs it here, prints JSON."""

import json
import time
from argparse import ArgumentParser
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from evaluation.exports_ablation import ablation_report
from evaluation.models import Ablation, AblationOrder, EvaluationRun
from evaluation.selectors.ablations import ablatable_runs, ablation_get
from evaluation.services.ablation_execution import JOB_KIND
from evaluation.services.ablations import AblationChoice, ablation_create, ablation_plan
from pld_app.errors import Refusal
from pld_app.jobs import job_execute
from pld_app.models import Job
from rules.models import RunState, Task


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("task", help="slug of the task")
        parser.add_argument(
            "--run", type=int, metavar="N", help="the run to compare with; default: the newest finished"
        )
        parser.add_argument("--only", type=int, nargs="+", metavar="N", default=[], help="numbers of instructions")
        orders = [AblationOrder.SUPPORT.value, AblationOrder.CONFLICT.value]
        parser.add_argument(
            "--order", choices=orders, default=orders[0], help="which ones first, as far as calls allow"
        )
        parser.add_argument("--max-calls", type=int, required=True)
        parser.add_argument("--max-cost", type=Decimal)
        parser.add_argument("--estimate", action="store_true", help="only say what it would take")
        parser.add_argument("--inline", action="store_true", help="run it in this process and print its figures")

    def handle(self, *args: Any, **options: Any) -> None:
        run = _run(options)
        choice = AblationChoice(
            order=AblationOrder(options["order"]),
            picked=tuple(options["only"]),
            max_calls=options["max_calls"],
            max_cost=options["max_cost"],
        )
        try:
            if options["estimate"]:
                self.stdout.write(_estimate(run, choice))
                return
            ablation = ablation_create(run=run, user=None, choice=choice, confirmed=None)
        except Refusal as refusal:
            raise CommandError(str(refusal.user_message)) from refusal
        if not options["inline"]:
            self.stdout.write(f"{ablation.task.slug}: ablation {ablation.number} is queued.")
            return
        ablation = _run_here(ablation)
        self.stdout.write(json.dumps(ablation_report(ablation), sort_keys=True))
        if ablation.state != RunState.SUCCEEDED:
            raise CommandError(f"Ablation {ablation.number} {ablation.get_state_display().lower()}: {ablation.error}")


def _run(options: dict[str, Any]) -> EvaluationRun:
    task = Task.objects.select_related("student").filter(slug=options["task"]).first()
    if task is None:
        raise CommandError(f"There is no task {options['task']}.")
    runs = ablatable_runs(task)
    found = runs.filter(number=options["run"]).first() if options["run"] else runs.first()
    if found is None:
        raise CommandError("There is no such finished run of a ruleset or release. Evaluate one first.")
    return found


def _estimate(run: EvaluationRun, choice: AblationChoice) -> str:
    plan = ablation_plan(run, choice)
    found = {
        "run": run.number,
        "instructions": [item.row.instruction.number for item in plan.measured],
        "not_measured": len(plan.items) - len(plan.measured),
        "examples": plan.examples,
        "calls": plan.calls,
        "recorded": plan.recorded,
        "tokens": plan.tokens,
        "cost": str(plan.cost),
    }
    return json.dumps(found, sort_keys=True)


def _run_here(ablation: Ablation) -> Ablation:
    """Carry it through, slice by slice; a worker that was faster is waited for."""
    job = Job.objects.get(kind=JOB_KIND, subject_id=ablation.pk)
    while not (ablation.is_final or ablation.state == RunState.PAUSED):
        job_execute(job_id=job.pk)
        ablation.refresh_from_db()
        job.refresh_from_db()
        if not (ablation.is_final or ablation.state == RunState.PAUSED):
            time.sleep(min(5.0, max(0.2, (job.run_after - timezone.now()).total_seconds())))
    return ablation_get(ablation.task.slug, ablation.number)
