"""The marks of mining on the real Contract-NLI traces, with embedded defaults and no key."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.management import call_command

from pld_app.jobs import job_execute
from pld_app.models import Job
from rules.models import MicroRule, RunState
from rules.schemas import MiningParameters
from rules.services.imports import import_create
from rules.services.mining import mining_run_create
from tests.converters.contractnli import TASK_FIELDS, converted_lines
from tests.factories import make_task

TRACES: Path = settings.BASE_DIR.parent / "shared" / "data" / "contractnli" / "traces.jsonl"


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(not TRACES.exists(), reason="the Contract-NLI traces are not beside the project (../shared/data)")
def test_mining_finds_the_hypotheses_again() -> None:
    task = make_task("contract-nli", **TASK_FIELDS)
    upload = ContentFile(b"".join(converted_lines(TRACES, split="train")), name="traces.jsonl")
    made = import_create(task=task, upload=upload, file_name="traces.jsonl", user=None)
    job_execute(job_id=Job.objects.get(kind="trace_import", subject_id=made.pk).pk)
    run = mining_run_create(task=task, user=None, parameters=MiningParameters())
    job_execute(job_id=Job.objects.get(kind="mining_run", subject_id=run.pk).pk)

    output = StringIO()
    call_command("mining_report", f"{task.slug}/{run.number}", "--json", stdout=output)
    report = json.loads(output.getvalue())
    assert report["state"] == RunState.SUCCEEDED
    assert report["rows"] == 1037
    assert report["seconds"] < 20
    assert report["ami_yardstick"] >= 0.90
    assert report["covered_share"] == 1.0
    assert report["biggest_topic_share"] <= 0.15
    assert not MicroRule.objects.filter(run=run, cluster=None).exists()
