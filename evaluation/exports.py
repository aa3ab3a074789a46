"""A run as a file: JSON with prompt, figures and every prediction, CSV with the predictions for people."""

import csv
import json
from collections.abc import Iterator
from itertools import batched
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from evaluation.models import EvaluationRun, Example, Prediction
from evaluation.promptfoo import promptfoo_lines
from evaluation.selectors.runs import examples_of
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput
from pld_app.models import User
from pld_app.spreadsheets import Echo, disarm
from rules.selectors.rulesets import utc_text

KINDS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "yaml": "application/yaml; charset=utf-8",  # a promptfoo configuration
}
COLUMNS = (
    "example",
    "repeat",
    "gold",
    "predicted",
    "outcome",
    "problem",
    "reply",
    "model",
    "prompt_tokens",
    "completion_tokens",
    "latency_ms",
    "cost",
    "request_sha256",
    "input",
    "run",
    "kind",
    "prompt_sha256",
    "student",
    "split",
)


@transaction.atomic
def evaluation_export(*, run: EvaluationRun, kind: str, actor: User) -> Iterator[str]:
    """The chunks of the file of one of KINDS, and the event that it was taken out.

    Raises InvalidInput for a promptfoo configuration of a run that asked no student.
    """
    if kind == "yaml" and run.student is None:
        raise InvalidInput(_("This run asked no student, so there is nothing for promptfoo to ask. Take JSON or CSV."))
    data = {"kind": kind, "prompt_sha256": run.prompt_sha256, "state": run.state}
    audit_record("evaluation.exported", actor=actor, subject=run, task_slug=run.task.slug, data=data)
    if kind == "yaml":
        return promptfoo_lines(run, _examples(run))
    return _json_chunks(run) if kind == "json" else _csv_lines(run)


def _examples(run: EvaluationRun) -> Iterator[Example]:
    """The run's examples with their texts, some at a time."""
    for part in batched(examples_of(run), 500):
        rows = Example.objects.in_bulk([one.example_id for one in part])
        yield from (rows[one.example_id] for one in part)


def _predictions(run: EvaluationRun) -> Iterator[Prediction]:
    rows = run.predictions.select_related("example", "call").order_by("repeat", "example_id")
    return rows.defer("call__vectors").iterator(chunk_size=500)


def _record(prediction: Prediction) -> dict[str, Any]:
    call = prediction.call
    return {
        "example": prediction.example.external_id,
        "repeat": prediction.repeat,
        "input": prediction.example.input,
        "gold": prediction.gold,
        "predicted": prediction.label or None,
        "outcome": prediction.outcome,
        "problem": prediction.problem,
        "reply": (call.text or call.raw_reply) if call else "",
        "model": call.model_returned if call else "",
        "prompt_tokens": call.prompt_tokens if call else 0,
        "completion_tokens": call.completion_tokens if call else 0,
        "latency_ms": call.latency_ms if call else 0,
        "cost": str(call.cost) if call else "0",
        "request_sha256": call.request_hash if call else "",
    }


def _head(run: EvaluationRun) -> dict[str, Any]:
    return {
        "schema": "evaluation-export/v2",
        "task": run.task.slug,
        "run": run.number,
        "kind": run.kind,
        "prompt_name": run.prompt_name,
        "prompt": run.prompt,
        "prompt_sha256": run.prompt_sha256,
        "student_requested": run.student_model,
        "endpoint": run.student.slug if run.student else "",
        "dataset": run.dataset.number,
        "dataset_sha256": run.dataset.sha256,
        "split": run.split,
        "sample_size": run.sample_size,
        "seed": run.seed,
        "temperature": run.temperature,
        "repeats": run.repeats,
        "k": run.k,
        "labels": run.labels,
        "input_template": run.template,
        "abstention_label": run.abstention_label,
        "asked_sha256": run.asked_sha256,
        "examples_sha256": run.examples_sha256,
        "state": run.state,
        "error": run.error,
        "created_at": utc_text(run.created_at),
        "started_at": utc_text(run.started_at) if run.started_at else None,
        "finished_at": utc_text(run.finished_at) if run.finished_at else None,
        "figures": run.figures,
    }


def _json_chunks(run: EvaluationRun) -> Iterator[str]:
    """One JSON object, written piece by piece: a long run is never in memory as a whole."""
    head = json.dumps(_head(run), ensure_ascii=False, indent=1, sort_keys=True)
    yield head.removesuffix("\n}") + ',\n "predictions": ['
    separator = "\n"
    for prediction in _predictions(run):
        yield separator + json.dumps(_record(prediction), ensure_ascii=False, sort_keys=True)
        separator = ",\n"
    yield "\n]\n}\n"


def _csv_lines(run: EvaluationRun) -> Iterator[str]:
    writer = csv.writer(Echo())
    same = {
        "run": run.number,
        "kind": run.kind,
        "prompt_sha256": run.prompt_sha256,
        "student": run.student_model,
        "split": run.split,
    }
    yield "\ufeff" + writer.writerow(COLUMNS)
    for prediction in _predictions(run):
        record = _record(prediction) | same
        record["input"] = json.dumps(record["input"], ensure_ascii=False, sort_keys=True)
        yield writer.writerow([disarm("" if (v := record[name]) is None else str(v)) for name in COLUMNS])
