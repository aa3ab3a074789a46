"""The import service: what is kept, what is counted, and what a crash or a second import changes (nothing)."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from pld_app.errors import InvalidInput
from pld_app.jobs import JobResult, Lease, LeaseLost, job_claim, job_execute
from pld_app.models import AuditEvent, Job, JobState, User
from rules.models import ImportReject, ImportState, Task, Trace, TraceImport
from rules.schemas import TraceRow
from rules.services import imports as service
from rules.services.imports import content_hash, import_create, import_execute, import_failed, import_read_now
from tests.factories import audit_actions, make_task
from tests.imports.rows import CSV_HEADER, accepted, json_lines, many, row, zipped


@pytest.fixture(autouse=True)
def _media(tmp_path: Path, settings: Settings) -> None:
    settings.MEDIA_ROOT = tmp_path


def create(task: Task, data: bytes, user: User | None = None) -> TraceImport:
    return import_create(task=task, upload=ContentFile(data), file_name="traces.jsonl", user=user)


def job_of(made: TraceImport) -> Job:
    return Job.objects.get(kind=service.JOB_KIND, subject_id=made.pk)


def run(task: Task, data: bytes, user: User | None = None) -> TraceImport:
    """Import to the end, by the job's own way."""
    made = create(task, data, user)
    job_execute(job_id=job_of(made).pk)
    made.refresh_from_db()
    return made


def counts(made: TraceImport) -> tuple[int, int, int]:
    return made.rows_new, made.rows_unchanged, made.rows_rejected


def test_good_rows_are_kept_and_bad_ones_listed(task: Task, ada: User) -> None:
    data = json_lines([row(1), row(2, label="Fine"), row(3)]) + b"\n" + b"{\n"
    made = run(task, data, ada)
    assert (made.state, made.error, counts(made)) == (ImportState.SUCCEEDED, "", (2, 0, 2))
    assert (made.bytes_read, made.file_bytes) == (len(data), len(data))
    rejects = ImportReject.objects.filter(trace_import=made).values_list("line", "reason")
    assert list(rejects) == [(2, "unknown label"), (5, "not JSON")]
    assert audit_actions(made) == ["import.created", "import.finished"]
    event = AuditEvent.objects.get(action="import.finished")
    assert (event.task_slug, event.data["new"], event.data["rejected"]) == (task.slug, 2, 2)
    assert job_of(made).state == JobState.DONE


def test_every_text_is_stored_exactly_and_its_hash_can_be_checked(task: Task) -> None:
    sent = row(
        1,
        input={"clause": '=HYPERLINK("http://evil.example")', "question": "<b onclick=x>\r\n\t\u202e e\u0301</b>"},
        instruction="  <script>alert(1)</script>\n",
        rationale="{{ 7*7 }} {% now %} \\ \u0001",
        metadata={"items": "x", "n": 2**53 - 1, "yes": True, "none": None, "": ""},
    )
    assert run(task, json_lines([sent])).rows_new == 1
    trace = Trace.objects.get(task=task)
    stored = {"id": trace.external_id} | {
        name: getattr(trace, name)
        for name in ("input", "label", "rationale", "instruction", "teacher", "split", "metadata")
    }
    assert stored == TraceRow(**sent).model_dump()
    assert trace.content_hash == content_hash(TraceRow(**stored))


@pytest.mark.parametrize("again", [many(1200), zipped(many(1200)), many(1200).replace(b"\n", b"\r\n")])
def test_the_same_rows_again_change_nothing(task: Task, again: bytes) -> None:
    assert counts(run(task, many(1200))) == (1200, 0, 0)
    before = list(Trace.objects.order_by("pk").values())
    assert counts(run(task, again)) == (0, 1200, 0)
    assert list(Trace.objects.order_by("pk").values()) == before


def test_an_id_taken_by_other_content_is_rejected_and_the_first_stays(task: Task) -> None:
    run(task, json_lines([row(1)]))
    made = run(task, json_lines([row(1, label="Breach"), row(2)]))
    assert counts(made) == (1, 0, 1)
    reject = ImportReject.objects.get(trace_import=made)
    assert (reject.line, reject.reason) == (1, "id taken")
    assert Trace.objects.get(external_id="r-1").label == "Compliant"


def test_the_same_id_in_two_tasks_is_two_traces(task: Task) -> None:
    run(task, many(1))
    assert counts(run(make_task("other"), many(1))) == (1, 0, 0)


def test_csv_is_stored_like_json(task: Task) -> None:
    data = CSV_HEADER + 'r-1,Clause 1.,May copies be kept?,Compliant,"Clause 1 allows it.",\n'
    assert counts(run(task, data.encode())) == (1, 0, 0)
    assert Trace.objects.get().input == {"clause": "Clause 1.", "question": "May copies be kept?"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" \n", "The file is empty"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        (many(3).decode().encode("utf-16"), "UTF-16"),
        (b"id,label,clause,question,caf\xe9\n", "not UTF-8"),
        (b"\x1f\x8b\x08", "damaged or cut off"),
    ],
)
def test_an_unreadable_file_fails_with_its_reason_at_once(task: Task, data: bytes, message: str) -> None:
    made = run(task, data)
    assert made.state == ImportState.FAILED
    assert message in made.error
    assert job_of(made).state == JobState.DONE
    assert audit_actions(made) == ["import.created", "import.finished"]


def test_rows_before_a_break_in_the_file_are_kept(task: Task) -> None:
    noise = random.Random(3)
    made = run(task, zipped(json_lines(row(n, rationale=noise.randbytes(500).hex()) for n in range(1200)))[:-4])
    assert (made.state, made.error) == (ImportState.FAILED, "The gzip file is damaged or cut off. Upload it again.")
    # What the last block of 256 KiB held is not vouched for; the batch that was begun before it is.
    assert 500 < made.rows_new < 1200
    assert made.rows_new % 500
    assert Trace.objects.count() == made.rows_new
    assert AuditEvent.objects.get(action="import.finished").data["new"] == made.rows_new


def test_too_many_rows_are_refused_in_words(task: Task, settings: Settings) -> None:
    settings.IMPORT_MAX_ROWS = 600
    made = run(task, many(1100))
    assert (made.state, made.error) == (ImportState.FAILED, "The file has more than 600 rows. Split it.")
    assert Trace.objects.count() == made.rows_new == 500


def test_a_file_that_unpacks_to_too_much_is_refused(task: Task, settings: Settings) -> None:
    settings.IMPORT_MAX_BYTES = 20_000
    made = run(task, zipped(many(1000)))
    assert "unpacks to more than the limit" in made.error


@pytest.mark.parametrize(("data", "message"), [(b"", "The file is empty"), (b"x" * 2_000_000, "larger than 1 MiB")])
def test_what_cannot_be_a_file_leaves_no_trace(
    task: Task, data: bytes, message: str, settings: Settings, tmp_path: Path
) -> None:
    settings.IMPORT_MAX_BYTES = 1024 * 1024
    with pytest.raises(InvalidInput, match=message):
        create(task, data)
    assert not TraceImport.objects.exists()
    assert not list(tmp_path.rglob("*.traces"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "a" * 300 + ".jsonl", "<b>.csv", "=1+1.csv"])
def test_a_file_name_is_only_a_label(task: Task, name: str, tmp_path: Path) -> None:
    made = import_create(task=task, upload=ContentFile(many(1)), file_name=name, user=None)
    assert "/" not in made.file_name
    assert len(made.file_name) <= 200
    assert tmp_path in Path(made.file.path).parents


def test_long_rows_come_in_small_batches(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "BATCH_CHARS", 100_000)
    sizes: list[int] = []
    made = create(task, json_lines(row(number, rationale="x" * 40_000) for number in range(10)))
    claimed = job_claim(job_of(made).pk)
    assert claimed
    import_execute(made.pk, claimed[1], lambda now: sizes.append(now.rows_new))
    assert sizes == [3, 6, 9, 10]


def test_only_some_rejects_are_stored_and_all_are_counted(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "MAX_STORED_REJECTS", 700)
    made = run(task, b"{}\n" * 1300)
    assert made.rows_rejected == 1300
    assert made.rejects.count() == 700


# Crash and resume.


class Crash(Exception):
    """The worker died here."""


class CrashingLease(Lease):
    """Dies at a chosen look at the lease: before the first batch, between two, or before the end."""

    def __init__(self, lease: Lease, at: int) -> None:
        super().__init__(lease.job_id, lease.token)
        self.looks, self.at = 0, at

    def check(self) -> None:
        self.looks += 1
        if self.looks == self.at:
            raise Crash
        super().check()


MIXED = json_lines(row(number, label="Fine" if number % 10 == 0 else "Breach") for number in range(1, 1601))


@pytest.mark.parametrize("at", [1, 2, 3, 5, 6])
def test_a_crash_and_a_second_start_give_the_same_counts(task: Task, at: int) -> None:
    made = create(task, MIXED)
    claimed = job_claim(job_of(made).pk)
    assert claimed
    with pytest.raises(Crash):
        import_execute(made.pk, CrashingLease(claimed[1], at))
    made.refresh_from_db()
    assert not made.is_finished
    Job.objects.update(lease_until=timezone.now())
    job_execute(job_id=job_of(made).pk)
    made.refresh_from_db()
    assert (made.state, counts(made)) == (ImportState.SUCCEEDED, (1440, 0, 160))
    assert (Trace.objects.count(), made.rejects.count()) == (1440, 160)
    assert audit_actions(made) == ["import.created", "import.finished"]


def test_a_crash_after_the_end_does_not_undo_it(task: Task) -> None:
    made = create(task, many(3))
    for _kill in range(4):
        claimed = job_claim(job_of(made).pk)
        assert claimed
        if _kill == 0:
            assert import_execute(made.pk, claimed[1]) is JobResult.DONE
        Job.objects.update(lease_until=timezone.now())
    job_execute(job_id=job_of(made).pk)
    made.refresh_from_db()
    assert (made.state, made.error) == (ImportState.SUCCEEDED, "")
    assert audit_actions(made) == ["import.created", "import.finished"]


def test_a_job_that_was_given_up_says_so_on_its_import(task: Task) -> None:
    made = create(task, many(3))
    import_failed(made.pk, "OSError: disk full")
    made.refresh_from_db()
    assert (made.state, made.error) == (ImportState.FAILED, "Reading stopped: OSError: disk full")
    assert audit_actions(made)[-1] == "import.finished"


def test_a_worker_whose_lease_is_lost_writes_nothing_more(task: Task) -> None:
    made = create(task, many(1200))
    claimed = job_claim(job_of(made).pk)
    assert claimed
    taken: list[Any] = []

    def take_over(_now: TraceImport) -> None:
        Job.objects.update(lease_until=timezone.now())
        taken.append(job_claim(job_of(made).pk))

    with pytest.raises(LeaseLost):
        import_execute(made.pk, claimed[1], take_over)
    assert Trace.objects.count() == 500
    assert import_execute(made.pk, taken[0][1]) is JobResult.DONE
    with pytest.raises(LeaseLost):
        service._import_restart(made, claimed[1])
    made.refresh_from_db()
    assert counts(made) == (1200, 0, 0)


def test_a_file_that_is_gone_is_said(task: Task) -> None:
    made = create(task, many(1))
    Path(made.file.path).unlink()
    job_execute(job_id=job_of(made).pk)
    made.refresh_from_db()
    assert "is gone. Upload it again" in made.error


# Two at once.


@pytest.fixture
def in_two_threads() -> Iterator[Callable[[Callable[[int], Any]], list[Any]]]:
    with ThreadPoolExecutor(2) as pool:

        def both(work: Callable[[int], Any]) -> list[Any]:
            def one(number: int) -> Any:
                try:
                    return work(number)
                finally:
                    connection.close()

            return list(pool.map(one, range(2)))

        yield both


@pytest.mark.django_db(transaction=True)
def test_the_same_file_twice_at_once_is_one_set_of_traces(in_two_threads: Callable[..., list[Any]]) -> None:
    task = make_task()
    made = [create(task, many(1700)) for _ in range(2)]
    in_two_threads(lambda number: job_execute(job_id=job_of(made[number]).pk))
    for one in made:
        one.refresh_from_db()
        assert (one.state, one.rows_new + one.rows_unchanged, one.rows_rejected) == (ImportState.SUCCEEDED, 1700, 0)
    assert sum(one.rows_new for one in made) == Trace.objects.count() == 1700


@pytest.mark.django_db(transaction=True)
def test_two_files_that_contest_ids_at_once_agree_on_one_content(in_two_threads: Callable[..., list[Any]]) -> None:
    task = make_task()
    made = [
        create(task, json_lines(row(number, rationale=f"version {version}") for number in range(1200)))
        for version in range(2)
    ]
    in_two_threads(lambda number: job_execute(job_id=job_of(made[number]).pk))
    for one in made:
        one.refresh_from_db()
        assert (one.state, one.rows_new + one.rows_rejected) == (ImportState.SUCCEEDED, 1200)
    assert sum(one.rows_new for one in made) == Trace.objects.count() == 1200


@pytest.mark.django_db(transaction=True)
def test_one_import_by_two_workers_is_read_once(in_two_threads: Callable[..., list[Any]]) -> None:
    made = create(make_task(), many(600))
    in_two_threads(lambda _number: job_execute(job_id=job_of(made).pk))
    made.refresh_from_db()
    assert counts(made) == (600, 0, 0)
    assert audit_actions(made) == ["import.created", "import.finished"]


def test_a_command_waits_for_the_worker_that_was_faster_and_goes_on_when_that_dies(task: Task) -> None:
    made = create(task, many(3))
    assert job_claim(job_of(made).pk)
    seen: list[int] = []

    def watch(now: TraceImport) -> None:
        seen.append(now.rows_new)
        Job.objects.filter(pk=job_of(made).pk, attempts=1).update(lease_until=timezone.now() - timedelta(seconds=1))

    done = import_read_now(made, watch=watch)
    assert (done.state, done.rows_new, seen) == (ImportState.SUCCEEDED, 3, [0, 3])


@pytest.mark.slow
def test_twenty_thousand_rows_take_little_time(task: Task) -> None:
    started = time.monotonic()
    assert run(task, many(20_000)).rows_new == 20_000
    assert time.monotonic() - started < 60


def test_rows_of_the_helper_are_valid() -> None:
    assert len(accepted(many(3))) == 3
