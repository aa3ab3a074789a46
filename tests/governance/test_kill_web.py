"""Test 54: the web process killed with -9 at 30 points of an approval leaves event and decision both, or neither."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test import Client
from django.urls import reverse

from pld_app.devstack.ports import free_port
from pld_app.devstack.probe import http_status
from rules.models import Decision, Instruction
from tests.factories import audit_actions, make_instruction
from tests.governance.conftest import Cast
from tests.governance.cutting import Cut, cutting
from tests.workers import database_url, process_environment

ROOT = Path(__file__).resolve().parents[2]
POINTS = 30
CSRF = "c" * 32


class Web:
    """gunicorn with one worker, talking to Postgres through the proxy; a killed worker is replaced at once."""

    def __init__(self, cut: Cut, log: Path) -> None:
        settings = connection.settings_dict
        self.port = free_port()
        given = process_environment() | {
            "DATABASE_URL": database_url().replace(
                f"?host={settings['HOST']}&port={settings['PORT']}", f"?host=127.0.0.1&port={cut.port}"
            ),
            "PGSSLMODE": "disable",  # one message a packet
            "PLD_ALLOWED_HOSTS": "127.0.0.1",
        }
        options = f"--bind 127.0.0.1:{self.port} --workers 1 --preload --no-control-socket"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "pld_app.wsgi:application", *options.split()],
                cwd=ROOT,
                env=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text(encoding="ascii").split()]

    def kill_worker(self) -> None:
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)

    def is_ready(self) -> bool:
        return http_status(f"http://127.0.0.1:{self.port}/healthz") == 200

    def wait_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self.is_ready():
            assert self.process.poll() is None, "the web server ended"
            assert time.monotonic() < deadline, "the web server does not answer"
            time.sleep(0.02)

    def post(self, path: str, session: str) -> int:
        """The status of approving version 1, 0 when no answer came."""
        sender = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {
            "Cookie": f"sessionid={session}; csrftoken={CSRF}",
            "X-CSRFToken": CSRF,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        try:
            sender.request("POST", path, "version=1", headers)
            return sender.getresponse().status
        except (http.client.HTTPException, OSError):
            return 0
        finally:
            sender.close()


@contextmanager
def running(log: Path) -> Iterator[tuple[Web, Cut]]:
    settings = connection.settings_dict
    cut = Cut(end=lambda: web.kill_worker())  # noqa: PLW0108  # the server is made below, with the port of the proxy
    with cutting(cut, (settings["HOST"] or "127.0.0.1", int(settings["PORT"] or 5432))):
        web = Web(cut, log)
        try:
            web.wait_ready()
            yield web, cut
        finally:
            os.killpg(web.process.pid, signal.SIGKILL)
            web.process.wait()


def outcome(one: Instruction) -> str:
    """ "whole", "nothing", or what is torn. Waits for the server to end the transaction of the killed process."""
    with transaction.atomic():
        row = Instruction.objects.select_for_update().get(pk=one.pk)
    decisions = Decision.objects.filter(instruction=one).count()
    found = (decisions, audit_actions(one), row.status, row.version)
    whole: tuple[int, list[str], str, int] = (1, ["instruction.approved"], "approved", 2)
    nothing: tuple[int, list[str], str, int] = (0, [], "proposed", 1)
    return "whole" if found == whole else "nothing" if found == nothing else f"torn: {found}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker's process in /proc")
@pytest.mark.django_db(transaction=True)
def test_54_kill_9_in_mid_approval_leaves_both_or_neither(cast: Cast, tmp_path: Path) -> None:
    task, ana, _ben, _sam, _sue = cast
    browser = Client()
    browser.force_login(ana)
    session = browser.cookies["sessionid"].value
    with running(tmp_path / "web.log") as (web, cut):

        def approve(one: Instruction) -> int:
            return web.post(reverse("instruction-approve", args=[task.slug, one.number]), session)

        warm = make_instruction(task)
        assert approve(warm) == 302
        one = make_instruction(task)
        cut.arm(0, after=False)
        assert approve(one) == 302
        messages = cut.count
        assert messages >= 10, "too few messages to be cut at"
        seen: list[str] = []
        for point in range(POINTS):
            one = make_instruction(task)
            web.wait_ready()
            # Spread over the whole request, in turns just before a message is sent and just after it was answered.
            at = 1 + point * (messages - 1) // (POINTS - 1)
            cut.arm(at, after=bool(point % 2))
            status = approve(one)
            assert cut.is_cut.is_set() == (status == 0), (at, status)
            cut.arm(0, after=False)
            left = outcome(one)
            assert left in {"whole", "nothing"}, (at, left)
            seen.append(left)
            # The person sends it again: it counts now if it did not before, and never twice.
            web.wait_ready()
            assert approve(one) == (409 if left == "whole" else 302)
            assert outcome(one) == "whole"
    assert len(seen) == POINTS
    assert {"whole", "nothing"} == set(seen), "the points were all on one side of the commit"
    assert seen == sorted(seen, key=["nothing", "whole"].index), "once committed, later points find it committed"
