"""Tests 28, 29 and C21: one byte changed anywhere, and the student keeps its last good prompt and somebody is told."""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from pld_app.models import AuditEvent, Notification, Role, User
from rules import student_loader
from rules.models import ChannelName, Release, Task
from rules.services.publishing import release_rollback
from rules.services.stopping import stop_make
from rules.services.tokens import token_create
from rules.services.withdrawing import ruleset_withdraw
from rules.student_loader import Loader, NoPrompt
from tests.database_roles import as_owner
from tests.factories import make_proof, make_task, make_user
from tests.publishing import steps

PRODUCTION, STAGING = ChannelName.PRODUCTION, ChannelName.STAGING
URL = "/api/v1/tasks/nda/prompt"


@contextmanager
def damaged(release: Release) -> Iterator[None]:
    """One byte of the stored prompt is another, for every session, as only the owner of the table can make it."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("ALTER TABLE rules_release DISABLE TRIGGER pld_append_only")
        cursor.execute("UPDATE rules_release SET prompt = overlay(prompt placing '#' from 1 for 1)")
    yield
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("UPDATE rules_release SET prompt = %s WHERE id = %s", [release.prompt, release.pk])
        cursor.execute("ALTER TABLE rules_release ENABLE ALWAYS TRIGGER pld_append_only")


@pytest.mark.django_db
class TestTheServer:
    def test_c21_a_changed_byte_serves_the_valid_release_before_and_tells(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, abe: User, client: Client
    ) -> None:
        first = steps.in_production(task, ana, sam, sue)
        second = steps.again(task, ana, sam, sue)
        for channel in (STAGING, PRODUCTION):
            steps.publish(second, sam, channel)
        headers = {"Authorization": f"Bearer {token_create(task=task, name='student', actor=ada)[1]}"}
        changed_directly("prompt = overlay(prompt placing '#' from 1 for 1)", second)
        for _asked in range(3):
            answer: Any = client.get(URL, headers=headers)
            assert (answer.status_code, answer.json()["version"]) == (200, first.version)
            assert answer.headers["X-Prompt-Fallback"] == "check_failed"
        told = Notification.objects.filter(kind="prompt.check_failed").values_list("user__username", flat=True)
        assert sorted(told) == ["abe", "ada", "sam", "sue"]  # once, however often it was asked
        event = AuditEvent.objects.get(action="prompt.check_failed")
        assert (event.object_id, event.data) == (str(second.pk), {"channel": "production", "what": "prompt"})
        changed_directly("prompt = overlay(prompt placing '#' from 1 for 1)", first)
        assert client.get(URL, headers=headers).status_code == 503

    def test_29_nothing_but_the_release_in_force_is_served_by_any_path(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, abe: User, client: Client
    ) -> None:
        headers = {"Authorization": f"Bearer {token_create(task=task, name='student', actor=ada)[1]}"}

        def served() -> set[str]:
            """What comes out by each way a program has: both channels, any channel's name, the command."""
            found = set()
            for query in ("", "?channel=production", "?channel=staging", "?channel=draft", "?version=1", "?channel=v1"):
                answer: Any = client.get(URL + query, headers=headers)
                found |= {answer.json()["prompt_sha256"]} if answer.status_code == 200 else set()
            for channel in ("production", "staging"):
                out = io.StringIO()
                try:
                    call_command("export_prompt", "nda", "--channel", channel, stdout=out)
                except CommandError:
                    continue
                found.add(hashlib.sha256(out.getvalue().encode()).hexdigest())
            return found

        steps.draft(task, ana, 1)
        steps.again_frozen(task, ana)
        steps.signed(task, ana, sam, sue, 1)
        unpublished = steps.released(task, ana, sam, sue, 1)
        assert served() == set()
        first, second = (published(task, ana, sam, sue, name) for name in ("first", "second"))
        assert served() == {second.prompt_sha256}  # not the older, nor the unpublished one
        release_rollback(
            release_id=first.pk, channel=PRODUCTION, actor=sam, proof=make_proof(sam), reason="Bad answers."
        )
        assert served() == {first.prompt_sha256, second.prompt_sha256}  # production, and staging as it was
        for release in (second, first):
            ruleset_withdraw(ruleset_id=release.ruleset_id, actor=sam, reason="Wrong.", proof=make_proof(sam))
        assert served() == set()
        third = published(task, ana, sam, sue, "third")
        assert served() == {third.prompt_sha256}
        stop_make(task=task, actor=sue, reason="Burns.", ruleset_id=third.ruleset_id)
        assert served() == set()
        assert unpublished.prompt_sha256 not in served()


def changed_directly(change: str, release: Release) -> None:
    """One edit by the owner of the table, with its triggers off."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE rules_release DISABLE TRIGGER USER")
        cursor.execute(f"UPDATE rules_release SET {change} WHERE id = %s", [release.pk])
        cursor.execute("ALTER TABLE rules_release ENABLE ALWAYS TRIGGER pld_append_only")


def published(task: Task, ana: User, sam: User, sue: User, words: str) -> Release:
    """A release with one rule more, in both channels."""
    steps.approved(task, ana, 1)
    Task.objects.filter(pk=task.pk).update(preamble=f"You check clauses, {words}.")
    task.refresh_from_db()
    release = steps.again(task, ana, sam, sue)
    for channel in (STAGING, PRODUCTION):
        steps.publish(release, sam, channel)
    return release


@pytest.fixture
def served_prompt(transactional_db: None) -> tuple[Release, str]:
    task, ana = make_task(), make_user("ana", Role.REVIEWER, "legal")
    release = steps.in_production(task, ana, make_user("sam", Role.SIGNATORY), make_user("sue", Role.SIGNATORY))
    return release, token_create(task=task, name="student", actor=make_user("ada", Role.ADMIN))[1]


class TestTheLoader:
    """Test 28 from the student's side, over real HTTP."""

    @pytest.fixture
    def heard(self) -> list[str]:
        return []

    @pytest.fixture
    def loader(
        self, served_prompt: tuple[Release, str], live_server: Any, tmp_path: Path, heard: list[str]
    ) -> Callable[[], Loader]:
        return lambda: Loader(live_server.url, "nda", served_prompt[1], tmp_path / "prompt.json", alert=heard.append)

    def test_it_takes_the_signed_prompt_and_keeps_it(
        self, served_prompt: tuple[Release, str], loader: Callable[[], Loader], tmp_path: Path, heard: list[str]
    ) -> None:
        release = served_prompt[0]
        for one in (loader(), loader()):  # the second is answered 304
            loaded = one.load()
            assert (loaded.prompt, loaded.sha256, loaded.fault) == (release.prompt, release.prompt_sha256, "")
        assert heard == []
        assert json.loads((tmp_path / "prompt.json").read_text())["version"] == 1

    def test_a_byte_changed_in_the_database(
        self, served_prompt: tuple[Release, str], loader: Callable[[], Loader], heard: list[str]
    ) -> None:
        release, one = served_prompt[0], loader()
        one.load()
        with damaged(release):
            for loaded in (one.load(), loader().load()):
                assert (loaded.prompt, "503" in loaded.fault) == (release.prompt, True)
        assert len(heard) == 2
        assert Notification.objects.filter(kind="prompt.check_failed").exists()

    @pytest.mark.parametrize("is_there", [True, False], ids=["server there", "server away"])
    def test_a_byte_changed_in_the_kept_file(
        self,
        served_prompt: tuple[Release, str],
        loader: Callable[[], Loader],
        tmp_path: Path,
        heard: list[str],
        is_there: bool,
    ) -> None:
        release, one, file = served_prompt[0], loader(), tmp_path / "prompt.json"
        one.load()
        whole = file.read_text()
        file.write_text(whole.replace("If clause 1", "If clause 7", 1))
        if not is_there:
            one._url = "http://127.0.0.1:9/gone"
        assert one.load().prompt == release.prompt  # fetched anew, or the last good one in memory
        assert "damaged" in heard[0]
        if not is_there:
            fresh = loader()
            fresh._url = one._url
            with pytest.raises(NoPrompt):
                fresh.load()
            file.write_text(whole)
            assert fresh.load().prompt == release.prompt  # a whole file outlives both processes

    def test_a_byte_changed_on_the_way(
        self, served_prompt: tuple[Release, str], loader: Callable[[], Loader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        release, one = served_prompt[0], loader()
        one.load()
        real = json.loads
        wrong = lambda data: real(bytes(data).replace(b"If clause 1", b"If clause 7", 1))  # noqa: E731
        (one._cache).unlink()
        monkeypatch.setattr("rules.student_loader.json.loads", wrong)
        loaded = one.load()
        assert (loaded.prompt, "not the one its hash names" in loaded.fault) == (release.prompt, True)

    def test_as_a_program_it_says_by_its_exit_code_what_it_prints(
        self, served_prompt: tuple[Release, str], live_server: Any, tmp_path: Path
    ) -> None:
        release, secret = served_prompt
        program = [sys.executable, "-I", student_loader.__file__]

        def run(server: str) -> tuple[int, str]:
            command = [*program, server, "nda", "--cache", str(tmp_path / "kept.json")]
            done = subprocess.run(
                command, env={"PLD_PROMPT_TOKEN": secret}, capture_output=True, text=True, check=False
            )
            return done.returncode, done.stdout

        assert run("http://127.0.0.1:9") == (1, "")
        assert run(live_server.url) == (0, release.prompt)
        assert run("http://127.0.0.1:9") == (3, release.prompt)
