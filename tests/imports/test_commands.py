"""`import_traces` and `task_create`, as an operator runs them."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings as project
from django.core.management import CommandError, call_command
from pytest_django import Settings

from pld_app.models import User
from rules.models import ImportState, Task, Trace, TraceImport
from tests.converters.contractnli import CONTRACT_NLI_TASK
from tests.factories import audit_actions
from tests.imports.rows import json_lines, many, row

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _media(tmp_path: Path, settings: Settings) -> None:
    settings.MEDIA_ROOT = tmp_path / "media"


def run(*arguments: object) -> tuple[str, str]:
    """What the command wrote to standard output and standard error."""
    out, err = StringIO(), StringIO()
    call_command(*(str(one) for one in arguments), stdout=out, stderr=err)
    return out.getvalue(), err.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_file_is_imported_with_progress_and_counts(task: Task, ada: User, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", many(1200) + json_lines([row(1), row(5000, label="Fine")]))
    out, err = run("import_traces", task.slug, path, "--user", "ada")
    assert out == "1200 new, 0 unchanged, 2 rejected\n"
    assert "100 %  1202 rows" in err
    assert "line 1202: unknown label" in err
    made = TraceImport.objects.get()
    assert (made.created_by, made.file_name, made.state) == (ada, "t.jsonl", ImportState.SUCCEEDED)
    assert run("import_traces", task.slug, path)[0] == "0 new, 1200 unchanged, 2 rejected\n"
    assert TraceImport.objects.first().created_by is None  # type: ignore[union-attr]  # it was just made


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "The file is empty"), (b"\x00\x01\x02", "binary"), (b"PK\x03\x04", "lacks id"), (b"\x1f\x8b", "damaged")],
)
def test_what_cannot_be_read_is_refused_in_words(task: Task, tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run("import_traces", task.slug, write(tmp_path / "bad", data))
    assert not Trace.objects.exists()


def test_a_missing_file_task_or_administrator_is_said(task: Task, ana: User, tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", many(1))
    with pytest.raises(CommandError, match="No such file"):
        run("import_traces", task.slug, tmp_path / "none")
    with pytest.raises(CommandError, match="Is a directory"):
        run("import_traces", task.slug, tmp_path)
    with pytest.raises(CommandError, match="There is no task other"):
        run("import_traces", "other", path)
    for name in ("ana", "nobody"):
        with pytest.raises(CommandError, match=f"{name} is no active administrator"):
            run("import_traces", task.slug, path, "--user", name)
    assert not TraceImport.objects.exists()


def test_the_sample_task_and_its_traces_go_in(tmp_path: Path) -> None:
    sample = project.BASE_DIR / "rules" / "sample"
    assert run("task_create", sample / "task.json")[0] == "Made the task nda-and-promotions.\n"
    out, _err = run("import_traces", "nda-and-promotions", sample / "traces.jsonl")
    count = len((sample / "traces.jsonl").read_text().splitlines())
    assert out == f"{count} new, 0 unchanged, 0 rejected\n"
    assert count >= 240


def test_a_task_is_made_once_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(CONTRACT_NLI_TASK))
    run("task_create", path)
    path.write_text(json.dumps(CONTRACT_NLI_TASK | {"preamble": "Other."}))
    out, err = run("task_create", path)
    assert "nothing was changed" in out
    assert "preamble" in err
    task = Task.objects.get()
    assert task.preamble == CONTRACT_NLI_TASK["preamble"]
    assert audit_actions(task) == ["task.created"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["One"]}, "at least two labels"),
        ({"labels": "One, Two"}, "labels must be a list"),
        ({"labels": ["One", "One"]}, "labels holds a name twice"),
        ({"signers_required": 1}, "at least two signers"),
        ({"signer_roles": ["admin"]}, "Only signatories and reviewers"),
        ({"slug": "a b"}, "slug"),
        ({"colour": "red"}, "does not know colour"),
        ({"name": None}, "name"),
    ],
)
def test_a_task_that_is_not_valid_is_refused_in_words(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "task.json"
    path.write_text(json.dumps(CONTRACT_NLI_TASK | change))
    with pytest.raises(CommandError, match=message):
        run("task_create", path)
    assert not Task.objects.exists()


@pytest.mark.parametrize(("text", "message"), [("{", "as JSON"), ("[]", "no JSON object"), ("{}", "lacks slug, name")])
def test_a_file_that_is_no_task_is_refused_in_words(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "task.json"
    path.write_text(text)
    with pytest.raises(CommandError, match=message):
        run("task_create", path)
