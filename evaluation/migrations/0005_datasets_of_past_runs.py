"""Runs made before there were datasets get one of exactly the traces they could ask about, by task, split and time.

A dataset of one split only: those runs used no other, so that nothing can stand in two splits. Runs of equal examples
get an equal `examples_sha256`, now over inputs and labels; their predictions and figures stay as they are. The mark of
what was asked (`asked_sha256`) stays empty: nobody repeats them unnoticed.
"""

import hashlib
import json

from django.db import migrations
from django.utils import timezone

BATCH = 1000


def _sha256(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


def _canonical(values):
    ordered = {key: values[key] for key in sorted(values, key=lambda key: key.encode("utf-16-be"))}
    return json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()


def _dataset(apps, run):
    Dataset, Example = apps.get_model("evaluation", "Dataset"), apps.get_model("evaluation", "Example")
    Trace = apps.get_model("rules", "Trace")
    name = f"{run.split} traces up to {run.last_trace_id}"
    found = Dataset.objects.filter(task_id=run.task_id, name=name).first()
    if found is not None:
        return found
    number = 1 + Dataset.objects.filter(task_id=run.task_id).count()
    dataset = Dataset.objects.create(
        task_id=run.task_id, number=number, name=name, source="traces", last_trace_id=run.last_trace_id
    )
    digest, labels, rows = hashlib.sha256(), {}, []
    traces = Trace.objects.filter(task_id=run.task_id, split=run.split, pk__lte=run.last_trace_id).order_by("pk")
    for position, trace in enumerate(traces.iterator(chunk_size=BATCH), start=1):
        hashed = _sha256(_canonical(trace.input))
        labels[trace.label] = labels.get(trace.label, 0) + 1
        digest.update(f"{run.split} {_sha256(trace.external_id)} {hashed} {_sha256(trace.label)}\n".encode())
        rows.append(
            Example(
                dataset=dataset,
                position=position,
                external_id=trace.external_id,
                split=run.split,
                input=trace.input,
                label=trace.label,
                input_sha256=hashed,
                trace_id=trace.pk,
            )
        )
        if len(rows) >= BATCH:
            Example.objects.bulk_create(rows)
            rows = []
    Example.objects.bulk_create(rows)
    dataset.sha256, dataset.counts = digest.hexdigest(), {run.split: dict(sorted(labels.items()))}
    dataset.state, dataset.frozen_at = "frozen", timezone.now()
    dataset.save()
    return dataset


def fill(apps, schema_editor):
    EvaluationRun = apps.get_model("evaluation", "EvaluationRun")
    for run in EvaluationRun.objects.select_related("task").order_by("pk").iterator(chunk_size=100):
        dataset = _dataset(apps, run)
        run.dataset, run.labels = dataset, run.task.labels
        with schema_editor.connection.cursor() as cursor:
            cursor.execute(
                "UPDATE evaluation_prediction p SET example_id = e.id FROM evaluation_example e"
                " WHERE p.run_id = %s AND e.dataset_id = %s AND e.trace_id = p.trace_id",
                [run.pk, dataset.pk],
            )
        rows = run.predictions.order_by("example_id").values_list("example__input_sha256", "example__label")
        if run.state == "succeeded":
            run.examples_sha256 = _sha256("\n".join(f"{hashed} {label}" for hashed, label in rows))
        run.save(update_fields=["dataset", "labels", "examples_sha256"])


class Migration(migrations.Migration):
    dependencies = [("evaluation", "0004_datasets_and_groups")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
