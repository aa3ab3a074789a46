"""The pages of imports and traces: what an upload is told, and how untrusted text is shown."""

import csv
import io
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.http import HttpResponse, StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

from pld_app.jobs import job_execute
from pld_app.models import Job, User
from rules.models import ImportReject, ImportState, Task, Trace, TraceImport
from tests.factories import audit_actions, make_task, make_trace
from tests.imports.rows import json_lines, many, row

type ClientOf = Callable[[User], Client]
MIB = 1024 * 1024
WIDE = "\N{FULLWIDTH EQUALS SIGN}"
HTML = '<script>alert(1)</script><img src=x onerror="alert(2)">'
FORMULA = '=HYPERLINK("http://evil.example","Click")'


@pytest.fixture(autouse=True)
def _media(tmp_path: Path, settings: Settings) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path)


@pytest.fixture
def admin(client_of: ClientOf, ada: User) -> Client:
    return client_of(ada)


def upload(client: Client, task: Task, data: bytes, name: str = "traces.jsonl") -> Any:
    file = SimpleUploadedFile(name, data)
    return client.post(reverse("import-new", args=[task.slug]), {"file": file})


def imported(client: Client, task: Task, data: bytes) -> TraceImport:
    """Upload by the form, then read by the job."""
    assert upload(client, task, data).status_code == 302
    made = TraceImport.objects.order_by("-pk")[0]
    job_execute(job_id=Job.objects.get(subject_id=made.pk, kind="trace_import").pk)
    made.refresh_from_db()
    return made


def detail_url(made: TraceImport) -> str:
    return reverse("import-detail", args=[made.task.slug, made.pk])


def body(response: Any) -> str:
    content = response.getvalue() if isinstance(response, StreamingHttpResponse) else response.content
    return str(content.decode())


def test_an_upload_is_queued_and_its_page_shows_it(admin: Client, ada: User, task: Task) -> None:
    response = upload(admin, task, many(3))
    made = TraceImport.objects.get()
    assert response.headers["Location"] == detail_url(made)
    assert (made.created_by, made.state) == (ada, ImportState.QUEUED)
    assert audit_actions(made) == ["import.created"]
    page = body(admin.get(detail_url(made)))
    assert 'hx-trigger="every 1s"' in page
    assert "traces.jsonl" in page


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"file": SimpleUploadedFile("t.jsonl", b"")}, "The submitted file is empty"),
        ({}, "This field is required"),
        ({"file": "not a file"}, "This field is required"),
    ],
)
def test_no_file_or_an_empty_one_is_refused_in_words(
    admin: Client, task: Task, files: dict[str, Any], message: str
) -> None:
    response = admin.post(reverse("import-new", args=[task.slug]), files)
    assert response.status_code == 422
    assert message in body(response)
    assert not TraceImport.objects.exists()


def test_a_finished_import_lists_its_rejects_in_page_and_fragment(admin: Client, task: Task) -> None:
    made = imported(admin, task, json_lines([row(1), row(2, label="Fine")]))
    for headers in ({}, {"HX-Request": "true"}):
        response = admin.get(detail_url(made), headers=headers)
        page = body(response)
        assert ("<html" in page) == (not headers)
        assert "unknown label" in page
        assert "hx-trigger" not in page
        assert "HX-Request" in response.headers["Vary"]


def test_a_failed_import_says_why(admin: Client, task: Task) -> None:
    made = imported(admin, task, b"\x89PNG\r\n\x1a\n\x00\x00\x00")
    assert "This is a binary file" in body(admin.get(detail_url(made)))
    assert "Failed" in body(admin.get(reverse("imports", args=[task.slug])))


# A file larger than the limit.


class Streamed(io.RawIOBase):
    """The body of a form with one huge file, made while it is read; watches what is stored meanwhile."""

    boundary = "frontier"

    def __init__(self, size: int, watched: Path) -> None:
        head = (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="note"\r\n\r\nx\r\n--{self.boundary}\r\n'
            'Content-Disposition: form-data; name="file"; filename="t.jsonl"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{self.boundary}--\r\n".encode()
        self.length = len(head) + size + len(tail)
        self.stored = 0
        self._watched = watched
        self._parts = self._generate(head, size, tail)
        self._left = b""

    def _generate(self, head: bytes, size: int, tail: bytes) -> Iterator[bytes]:
        yield head
        block = (b'{"id": "' + b"x" * 1000 + b'"}\n') * 64
        for start in range(0, size, len(block)):
            yield block[: size - start]
        yield tail

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while len(self._left) < size and (part := next(self._parts, b"")):
            self._left += part
        data, self._left = self._left[:size], self._left[size:]
        self.stored = max(self.stored, stored_bytes(self._watched))
        return data


def stored_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def post_streamed(client: Client, url: str, size: int, watched: Path) -> tuple[HttpResponse, Streamed]:
    stream = Streamed(size, watched)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": url,
        "CONTENT_LENGTH": str(stream.length),
        "CONTENT_TYPE": f"multipart/form-data; boundary={stream.boundary}",
        "wsgi.input": stream,
    }
    response: Any = client.request(**environ)
    return response, stream


def test_a_file_of_200_mib_is_refused_and_never_stored(admin: Client, task: Task, tmp_path: Path) -> None:
    tracemalloc.start()
    response, stream = post_streamed(admin, reverse("import-new", args=[task.slug]), 200 * MIB, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert response.status_code == 422
    page = body(response)
    assert "The file is larger than 100 MiB. Compress it with gzip or split it." in page
    assert "This field is required" not in page
    assert not TraceImport.objects.exists()
    assert stream.stored == stored_bytes(tmp_path) == 0
    assert peak < 24 * MIB


def test_a_file_just_over_the_limit_is_cut_off_and_removed(
    admin: Client, task: Task, tmp_path: Path, settings: Settings
) -> None:
    settings.IMPORT_MAX_BYTES = MIB
    url = reverse("import-new", args=[task.slug])
    response, stream = post_streamed(admin, url, MIB + 100, tmp_path)
    assert response.status_code == 422
    assert "larger than 1 MiB" in body(response)
    assert 0 < stream.stored <= MIB
    assert stored_bytes(tmp_path) == 0
    response, _stream = post_streamed(admin, url, MIB, tmp_path)
    assert response.status_code == 302


def test_many_files_in_one_request_share_the_limit(admin: Client, task: Task, settings: Settings) -> None:
    settings.IMPORT_MAX_BYTES = MIB
    files = {f"file{number}": SimpleUploadedFile("t", b"x" * (MIB // 2)) for number in range(3)}
    response = admin.post(reverse("import-new", args=[task.slug]), files)
    assert response.status_code == 422
    assert "larger than 1 MiB" in body(response)


def test_a_stranger_stores_no_file(client: Client, task: Task, tmp_path: Path, db: None) -> None:
    for url in (reverse("import-new", args=[task.slug]), reverse("login")):
        _response, stream = post_streamed(client, url, MIB, tmp_path)
        assert stream.stored == 0


# Untrusted text.


def test_markup_and_formulas_are_shown_as_text_everywhere(admin: Client, task: Task) -> None:
    texts = {"clause": HTML, "question": FORMULA}
    data = json_lines(
        [
            row(1, id=HTML, input=texts, rationale=HTML, instruction=HTML, teacher=HTML, metadata={HTML: HTML}),
            row(2, id=FORMULA, label=HTML),
        ]
    )
    made = imported(admin, task, data + HTML.encode())
    trace = Trace.objects.get()
    urls = [
        detail_url(made),
        reverse("imports", args=[task.slug]),
        reverse("traces", args=[task.slug]) + "?q=%3Cscript%3E",
        reverse("trace-detail", args=[task.slug, trace.pk]),
    ]
    assert (made.rows_new, made.rows_rejected) == (1, 2)
    for url in urls:
        page = body(admin.get(url))
        assert "<script>alert" not in page
        assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert (trace.input, trace.instruction) == (texts, HTML)


@pytest.mark.parametrize("key", ["items", "keys", "0", "__class__", "a b", ""])
def test_a_trace_may_use_any_metadata_key(admin: Client, task: Task, key: str) -> None:
    imported(admin, task, json_lines([row(1, metadata={key: "the value"})]))
    response = admin.get(reverse("trace-detail", args=[task.slug, Trace.objects.get().pk]))
    assert response.status_code == 200
    assert "the value" in body(response)


def test_the_rejects_come_as_csv_without_formulas(admin: Client, task: Task) -> None:
    rows = [
        b"=1+1",
        b"@SUM(A1)",
        b"+1",
        b"-1",
        b'\t"x"',
        f"{WIDE}1".encode(),
        b'{"a": "b,\\"c"}',
        HTML.encode(),
    ]
    made = imported(admin, task, many(1) + b"\n".join(rows))
    response = admin.get(reverse("import-rejects", args=[task.slug, made.pk]))
    assert response.headers["Content-Type"].startswith("text/csv")
    assert "attachment" in response.headers["Content-Disposition"]
    header, *lines = csv.reader(io.StringIO(body(response)))
    assert header == ["line", "reason", "message", "row"]
    assert [int(line[0]) for line in lines] == list(range(2, 2 + len(rows)))
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "+", "-", "@", "\t", "\r", WIDE))]
    assert [line[3] for line in lines[:4]] == ["'=1+1", "'@SUM(A1)", "'+1", "'-1"]


def test_pages_of_another_task_are_not_found(admin: Client, task: Task) -> None:
    made = imported(admin, task, many(1))
    other = make_task("other")
    trace = Trace.objects.get()
    for name, pk in (("import-detail", made.pk), ("import-rejects", made.pk), ("trace-detail", trace.pk)):
        assert admin.get(reverse(name, args=[other.slug, pk])).status_code == 404


# Lists.


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 3),
        ("split=test", 1),
        ("label=Breach", 1),
        ("q=copies", 3),
        ("q=COPIES&split=train", 2),
        ("q=nothing", 0),
        ("split=none&label=none", 3),
        ("page=99", 3),
        ("page=x", 3),
        ("q=%25", 0),
        ("q=%ED%A0%80", 0),
    ],
)
def test_traces_are_filtered(admin: Client, task: Task, query: str, found: int) -> None:
    make_trace(task)
    make_trace(task, split="test")
    make_trace(task, label="Breach")
    response = admin.get(reverse("traces", args=[task.slug]) + "?" + query)
    assert response.status_code == 200
    assert response.context["page"].paginator.count == found


def test_a_nul_in_a_search_is_refused_in_words(admin: Client, task: Task) -> None:
    response = admin.get(reverse("traces", args=[task.slug]) + "?q=%00")
    assert response.status_code == 422
    assert "NUL character" in body(response)


def make_import(task: Task, user: User) -> TraceImport:
    return TraceImport.objects.create(
        task=task, file_name="f", file_sha256="0" * 64, file_bytes=1, created_by=user, state=ImportState.SUCCEEDED
    )


@pytest.mark.parametrize("name", ["imports", "traces", "import-detail"])
def test_a_list_costs_the_same_queries_for_1_and_25_rows(
    admin: Client, ada: User, task: Task, name: str, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    made = make_import(task, ada)
    args = [task.slug, made.pk] if name == "import-detail" else [task.slug]
    url = reverse(name, args=args)

    def add(number: int) -> None:
        make_trace(task)
        make_import(task, ada)
        ImportReject.objects.create(trace_import=made, line=number, reason="r", message="m")

    add(1)
    with CaptureQueriesContext(connection) as first:
        admin.get(url)
    for number in range(2, 27):
        add(number)
    with django_assert_num_queries(len(first)):
        page = admin.get(url).context["page"]
    assert len(page.object_list) == 25
    assert page.has_next()
