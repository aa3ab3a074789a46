"""An ablation as a file: JSON with every figure, CSV with a row an instruction for people."""

import csv
import io
import json
from typing import Any

from django.db import transaction

from evaluation.models import Ablation
from evaluation.selectors.ablations import AblationRow, ablation_table
from pld_app.audit import audit_record
from pld_app.models import User
from pld_app.spreadsheets import disarm
from rules.selectors.rulesets import utc_text

KINDS = {"json": "application/json", "csv": "text/csv; charset=utf-8"}
COLUMNS = (
    *("place", "instruction", "label", "text", "measured", "flipped", "fixed", "broken", "n", "missing"),
    *("macro_f1_change", "low", "high", "p_value", "prompt_sha256", "ablation", "run", "student", "split"),
)


@transaction.atomic
def ablation_export(*, ablation: Ablation, kind: str, actor: User) -> str:
    """The file of one of KINDS, and the event that it was taken out."""
    data = {"kind": kind, "prompt_sha256": ablation.run.prompt_sha256, "state": ablation.state}
    audit_record("ablation.exported", actor=actor, subject=ablation, task_slug=ablation.task.slug, data=data)
    if kind == "csv":
        return _csv(_records(ablation))
    return json.dumps(ablation_report(ablation), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def ablation_report(ablation: Ablation) -> dict[str, Any]:
    """Everything that was found, as JSON takes it."""
    return _head(ablation) | {"instructions": _records(ablation)}


def _records(ablation: Ablation) -> list[dict[str, Any]]:
    """One of each instruction of the prompt, in its order, measured or not."""
    table = ablation_table(ablation)
    rows = sorted((*table.measured, *table.waiting, *table.left), key=lambda row: row.item.position)
    return [_record(ablation, row) for row in rows]


def _head(ablation: Ablation) -> dict[str, Any]:
    run = ablation.run
    return {
        "schema": "ablation-export/v1",
        "task": ablation.task.slug,
        "ablation": ablation.number,
        "state": ablation.state,
        "error": ablation.error,
        "order": ablation.order,
        "run": run.number,
        "prompt_name": run.prompt_name,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_name,
        "student_requested": run.student_model,
        "dataset": run.dataset.number,
        "dataset_sha256": run.dataset.sha256,
        "examples_sha256": run.examples_sha256,
        "split": run.split,
        "sample_size": run.sample_size,
        "seed": run.seed,
        "max_calls": ablation.max_calls,
        "max_cost": None if ablation.max_cost is None else str(ablation.max_cost),
        "calls_used": ablation.calls_used,
        "cost_used": str(ablation.cost_used),
        "estimate": ablation.estimate,
        "created_at": utc_text(ablation.created_at),
        "finished_at": utc_text(ablation.finished_at) if ablation.finished_at else None,
    }


def _record(ablation: Ablation, row: AblationRow) -> dict[str, Any]:
    figures, item = row.figures, row.item
    paired = figures.paired if figures else None
    interval = paired.macro_f1_change_interval if paired else None
    return {
        "place": item.position,
        "instruction": item.instruction.number,
        "label": item.instruction.label,
        "text": item.revision.text,
        "measured": paired is not None,
        "flipped": figures.flipped if figures and paired else None,
        "fixed": paired.fixed if paired else None,
        "broken": paired.broken if paired else None,
        "n": paired.n if paired else None,
        "missing": figures.missing if figures else None,
        "macro_f1_change": paired.macro_f1_change if paired else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "p_value": paired.p_value if paired else None,
        "prompt_sha256": item.prompt_sha256,
        "ablation": ablation.number,
        "run": ablation.run.number,
        "student": ablation.run.student_name,
        "split": ablation.run.split,
        "figures": figures.model_dump(mode="json") if figures else None,
    }


def _csv(records: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow([_cell(record[name]) for name in COLUMNS])
    return "\ufeff" + out.getvalue()


def _cell(value: object) -> str:
    """Text disarmed; a figure stays one, whatever its sign."""
    return disarm(value) if isinstance(value, str) else "" if value is None else str(value)
