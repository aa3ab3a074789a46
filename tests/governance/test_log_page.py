"""The state of the log on a page: seal, checkpoints to keep, keys; and a kept checkpoint is judged in words."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from pld_app.models import AuditEvent, Checkpoint, User
from pld_app.transparency.keys import key_rotate
from tests.governance.sealing import Log, events_make
from tests.governance.test_verify import as_owner, cut_tail, sql

type ClientOf = Callable[[User], Client]


@pytest.fixture
def auditor(client_of: ClientOf, abe: User) -> Client:
    return client_of(abe)


@pytest.fixture
def sealed(log: Log, ada: User) -> Log:
    for _part in range(3):
        events_make(ada, 40)
        log.seal()
    return log


def checked(auditor: Client, text: str) -> tuple[bool, str]:
    """The verdict on a checkpoint: whether it holds, and its title. The page says both."""
    response = auditor.post("/audit/log/check/", {"note": text})
    verdict = response.context["verdict"]
    assert verdict.title in response.content.decode()
    return verdict.holds, verdict.title


def test_it_says_how_the_log_stands_and_hands_out_checkpoints(auditor: Client, sealed: Log) -> None:
    page = auditor.get("/audit/log/")
    text = page.content.decode()
    sizes = list(Checkpoint.objects.order_by("-size").values_list("size", flat=True))
    assert [one.size for one in page.context["page"]] == sizes
    assert len(sizes) == 3
    assert "the newest checkpoint has a copy outside" in text
    assert "the first, introduced by itself" in text
    newest = Checkpoint.objects.latest("pk")
    note = auditor.get(f"/audit/log/checkpoints/{newest.pk}.txt")
    assert note.content.decode() == newest.note == sealed.newest_copy().read_text()
    assert "attachment" in note.headers["Content-Disposition"]


def test_a_kept_checkpoint_is_consistent_whenever_it_was_kept(auditor: Client, sealed: Log) -> None:
    before = AuditEvent.objects.count()
    for one in Checkpoint.objects.all():
        assert checked(auditor, one.note) == (True, "Consistent")
        assert checked(auditor, "\n" + one.note.replace("\n", "\r\n") + "\r\n\r\n") == (True, "Consistent")
    file = SimpleUploadedFile("kept.txt", Checkpoint.objects.latest("pk").note.encode())
    assert auditor.post("/audit/log/check/", {"file": file}).context["verdict"].holds
    assert AuditEvent.objects.count() == before, "checking writes nothing"


def test_after_a_rotation_the_older_key_still_counts_for_its_sizes(auditor: Client, sealed: Log, ada: User) -> None:
    kept = Checkpoint.objects.latest("pk").note
    key_rotate()
    events_make(ada, 5)
    sealed.seal()
    assert checked(auditor, kept) == (True, "Consistent")
    assert "introduced by" in auditor.get("/audit/log/").content.decode()


def test_a_cut_log_and_a_changed_one_are_said_in_words(auditor: Client, sealed: Log) -> None:
    kept = Checkpoint.objects.latest("pk").note
    with as_owner():
        cut_tail(40)
        assert checked(auditor, kept) == (False, "Events are missing here")
    with as_owner():
        sql("UPDATE pld_app_sealedleaf SET leaf_hash = sha256(leaf_hash) WHERE index = 7")
        assert checked(auditor, kept) == (False, "The log was changed")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("hello", "This is no checkpoint"),
        ("a\nb\nc\n\n— x y\n", "This is no checkpoint"),
        ("x" * 65_000, "This is no checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_said(text: str, title: str, auditor: Client, sealed: Log) -> None:
    assert checked(auditor, text) == (False, title)


def test_one_of_another_key_is_not_taken(auditor: Client, sealed: Log) -> None:
    origin, size, _root, rest = Checkpoint.objects.latest("pk").note.split("\n", 3)
    forged = "\n".join([origin, size, base64.b64encode(bytes(32)).decode(), rest])
    assert checked(auditor, forged) == (False, "Not a checkpoint of this log")


def test_nothing_given_is_said(auditor: Client, db: None) -> None:
    response = auditor.post("/audit/log/check/")
    assert response.status_code == 422
    assert "Paste the checkpoint you kept" in response.content.decode()


def test_before_anything_is_sealed(auditor: Client) -> None:
    page = auditor.get("/audit/log/").content.decode()
    assert "Nothing is sealed yet" in page
    assert "no key yet" in page


def test_the_page_costs_the_same_for_three_checkpoints_and_twenty(
    auditor: Client, sealed: Log, ada: User, django_assert_max_num_queries: Any
) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        auditor.get("/audit/log/")
    for _round in range(17):
        events_make(ada, 1)
        sealed.seal()
    with django_assert_max_num_queries(len(few)):
        auditor.get("/audit/log/")
