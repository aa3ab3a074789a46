"""Copies outside: they arrive, failures are kept and tried again, and the state is there to be read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from pld_app.model_edge.types import Secret
from pld_app.models import AuditEvent, AuditSink, Checkpoint, CheckpointCopy, User
from pld_app.transparency.copies import FolderSink, PostSink, copies_send, sinks_configured
from pld_app.transparency.health import log_health, seal_states
from pld_app.transparency.rounds import seal_round
from pld_app.transparency.sealing import Blocked
from rules.models import Task
from tests.governance.sealing import Log, events_make
from tests.publishing import steps


class Receiver(BaseHTTPRequestHandler):
    """Another party's server: keeps what it got, answers with the status it is told."""

    def do_POST(self) -> None:  # the name the server calls
        server: Any = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.got.append((body.decode(), self.headers.get("Authorization"), self.headers.get("Content-Type")))
        self.send_response(server.status)
        if server.status == 307:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@contextmanager
def receiver(status: int = 204) -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.status = [], status
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def post_to(server: Any) -> PostSink:
    return PostSink(f"http://127.0.0.1:{server.server_port}/checkpoints", Secret("sesame"))


def test_the_newest_checkpoint_is_posted_with_the_token_once(log: Log, ada: User) -> None:
    with receiver() as server:
        for _round in range(2):
            events_make(ada, 2)
            assert seal_round([FolderSink(log.copies), post_to(server)]).is_current
            assert seal_round([FolderSink(log.copies), post_to(server)]).is_current
    notes = list(Checkpoint.objects.order_by("pk").values_list("note", flat=True))
    assert server.got == [(note, "Bearer sesame", "text/plain") for note in notes]
    assert log_health().has_copy
    assert CheckpointCopy.objects.filter(sink="post").count() == 2


@pytest.mark.parametrize("status", [307, 400, 500])
def test_a_receiver_that_fails_is_left_alone_for_a_while_and_tried_again(status: int, log: Log, ada: User) -> None:
    events_make(ada, 2)
    with receiver(status) as server:
        sink = post_to(server)
        done = seal_round([sink, FolderSink(log.copies)])
        assert (done.sealed.added, done.are_copies_sent) == (AuditEvent.objects.count(), False)
        assert log.newest_copy().exists(), "the other place is served all the same"
        assert not copies_send([sink])
        assert len(server.got) == 1
        state = AuditSink.objects.get(name="post")
        assert (state.failures, state.last_error) == (1, f"127.0.0.1 answered with status {status}")
        assert "sesame" not in state.last_error
        AuditSink.objects.update(last_try_at=timezone.now() - timedelta(minutes=1))
        server.status = 200
        assert copies_send([sink])
    state.refresh_from_db()
    assert (state.failures, state.last_error) == (0, "")


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/x", "file:///etc/passwd", "http://127.0.0.1:1/x", "https://u:p@x/"]
)
def test_where_copies_may_not_go_nothing_is_sent(url: str, log: Log, settings: Any) -> None:
    settings.ENDPOINT_ALLOW_PRIVATE = []
    seal_round([])
    assert not copies_send([PostSink(url, Secret("sesame"))])
    assert AuditSink.objects.get().failures == 1


def test_a_folder_that_is_gone_is_a_failure_and_files_are_never_overwritten(log: Log, tmp_path: Path) -> None:
    log.seal()
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    assert not copies_send([FolderSink(blocked, name="other")])
    assert AuditSink.objects.get(name="other").last_error.startswith(("FileExistsError", "NotADirectoryError"))
    assert [path.suffix for path in log.copies.iterdir()] == [".txt"]


def test_settings_name_the_places(settings: Any) -> None:
    settings.AUDIT_COPY_DIR, settings.AUDIT_COPY_URL = "", ""
    assert sinks_configured() == []
    settings.AUDIT_COPY_DIR, settings.AUDIT_COPY_URL = "/srv/x", "https://x.example/y"
    assert [sink.name for sink in sinks_configured()] == ["folder", "post"]


def test_the_health_of_the_log_is_told(log: Log, ada: User, abe: User, client_of: Any) -> None:
    begun = AuditEvent.objects.count()
    assert (log_health().sealed, log_health().unsealed, log_health().word) == (0, begun, "sealed")
    log.seal()
    events_make(ada, 2)
    health = log_health()
    assert (health.sealed, health.unsealed, health.has_copy, health.alarm) == (begun, 2, True, None)
    assert health.sinks[0].size == begun
    page = client_of(abe).get("/health/").content.decode()
    assert "Seal of the audit log" in page
    assert "Copy in a folder" in page
    assert Client().get("/healthz").json() == {"status": "ok", "audit_log": "sealed"}
    forged = log.newest_copy().read_text().replace(f"\n{begun}\n", "\n9999\n")
    (log.copies / "checkpoint-000000009999-x.txt").write_text(forged)
    with pytest.raises(Blocked, match="does not count"):
        log.seal()
    assert Client().get("/healthz").json()["audit_log"] == "alarm"
    assert 'role="alert"' in client_of(abe).get("/health/").content.decode()


def test_the_seal_of_single_events(log: Log, ada: User) -> None:
    log.seal()
    begun = AuditEvent.objects.count()
    events_make(ada, 3)
    log.seal()
    events_make(ada, 1)
    ids = list(AuditEvent.objects.order_by("pk").values_list("pk", flat=True))
    states = seal_states(ids)
    first, then = range(begun), range(begun, begun + 3)
    expected = [(index, begun) for index in first] + [(index, begun + 3) for index in then]
    assert [(states[one].index, states[one].covered_by) for one in ids[:-1]] == expected
    assert ids[-1] not in states


def test_a_release_says_whether_its_publications_are_sealed(
    log: Log, task: Task, ana: User, sam: User, sue: User, client_of: Any
) -> None:
    """A publication does not wait for its seal; the page says until then that it has none."""
    release = steps.in_production(task, ana, sam, sue)
    path = f"/tasks/{task.slug}/releases/{release.version}/"
    assert client_of(sam).get(path).content.decode().count("not yet sealed") == 2
    size = log.seal().sealed.size
    page = client_of(sam).get(path).content.decode()
    assert "not yet sealed" not in page
    assert page.count(f"sealed in the checkpoint of {size} events") == 2
