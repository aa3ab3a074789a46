"""Bringing traces into a task and carrying jobs out, through the product's own services."""

from collections.abc import Iterable

from django.core.files.base import ContentFile

from pld_app.jobs import job_execute
from pld_app.models import Job, JobState
from rules.models import ImportState, Task, TraceImport
from rules.services.imports import JOB_KIND, import_create


def import_lines(task: Task, lines: Iterable[bytes]) -> TraceImport:
    """Import lines of `trace.v1` through upload and job."""
    upload = ContentFile(b"".join(lines), name="traces.jsonl")
    made = import_create(task=task, upload=upload, file_name="traces.jsonl", user=None)
    job_finish(JOB_KIND, made.pk)
    made.refresh_from_db()
    assert made.state == ImportState.SUCCEEDED, made.error
    assert made.rows_rejected == 0
    return made


def job_finish(kind: str, subject_id: int) -> None:
    """Carry a job out as a worker would, slice after slice, to its end."""
    job = Job.objects.get(kind=kind, subject_id=subject_id)
    while job.state == JobState.QUEUED:
        job_execute(job_id=job.pk)
        job.refresh_from_db()
    assert job.state == JobState.DONE, job.last_error
