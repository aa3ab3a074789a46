"""Asking for a bundle on a page: built by a worker, signed by the sealer after its own look, kept for a week."""

import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from pld_app.audit import audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.database.roles import APPLICATION, SEALER
from pld_app.errors import WrongState
from pld_app.jobs import job_execute
from pld_app.models import AuditEvent, Checkpoint, Job, JobState, User
from pld_app.transparency.keys import key_rotate, signer_load
from rules.export_bundle.build import statement_of
from rules.export_bundle.files import Files, zip_read
from rules.export_bundle.report import HTML
from rules.export_bundle.verify import Verdict, bundle_verify
from rules.models import BundleRequest, BundleSignature, BundleState, Ruleset, Task
from rules.services.bundle_requests import (
    EXPIRY_JOB_KIND,
    JOB_KIND,
    bundle_download,
    bundle_failed,
    bundle_request,
    files_path,
    zip_path,
)
from rules.services.bundle_signing import bundles_sign
from tests.database_roles import roles_apply
from tests.factories import audit_actions
from tests.governance.sealing import Log
from tests.publishing.steps import approved, frozen, signed
from tests.publishing.test_database import refused, sql

type ClientOf = Callable[[User], Client]


@pytest.fixture
def log(db: None, tmp_path: Path, settings: Settings) -> Log:
    settings.MEDIA_ROOT = str(tmp_path / "media")
    return Log(tmp_path, settings)


@pytest.fixture
def ruleset(log: Log, task: Task, ana: User, sam: User, sue: User) -> Ruleset:
    made = signed(task, ana, sam, sue, count=2)
    log.seal()
    return made


def run(request: BundleRequest, kind: str = JOB_KIND) -> BundleRequest:
    """What a worker does when the sweeper hands it the job."""
    job = Job.objects.get(kind=kind, subject_id=request.pk)
    Job.objects.filter(pk=job.pk).update(run_after=timezone.now() - timedelta(seconds=1))
    job_execute(job_id=job.pk)
    request.refresh_from_db()
    return request


def ready(ruleset: Ruleset, by: User, log: Log) -> BundleRequest:
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=by))
    assert request.state == BundleState.SIGNING, request.error
    log.seal()
    return run(request)


def test_from_request_to_a_file_that_verifies(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = ready(ruleset, abe, log)
    assert (request.state, request.error) == (BundleState.READY, "")
    _request, path = bundle_download(request_id=request.pk, actor=abe)
    data = path.read_bytes()
    assert (len(data), sha256_hex(data)) == (request.size, request.sha256)
    pinned = signer_load().private_key.public_key().public_bytes_raw()
    report = bundle_verify(io.BytesIO(data), pinned=pinned)
    assert report.verdict == Verdict.INTACT, report.fault
    assert request.events_done == request.events_total == len(list(zip_read(io.BytesIO(data)).lines("events.jsonl")))
    assert audit_actions(ruleset)[-3:] == ["bundle.requested", "bundle.made", "bundle.downloaded"]
    taken = AuditEvent.objects.get(action="bundle.downloaded")
    assert (taken.actor, taken.data) == (abe, {"sha256": request.sha256})
    assert not files_path(request).exists()


def test_asking_again_gives_the_one_there_is(ruleset: Ruleset, abe: User, ana: User, ada: User, log: Log) -> None:
    request = bundle_request(ruleset_id=ruleset.pk, actor=abe)
    assert bundle_request(ruleset_id=ruleset.pk, actor=ana) == request
    assert ready(ruleset, ada, log) == request
    newest = bundle_request(ruleset_id=ruleset.pk, actor=ada)
    assert (newest == request) == (log.seal().sealed.added == 0)
    assert BundleRequest.objects.count() == 1 + (newest != request)


def test_two_bundles_of_one_checkpoint_would_be_one_too_many(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = ready(ruleset, abe, log)
    with transaction.atomic():
        other = BundleRequest(ruleset=ruleset, requested_by=abe)
        other.event = audit_record("bundle.requested", actor=abe, subject=ruleset)
        other.save()
    update = "UPDATE rules_bundlerequest SET state = 'building', checkpoint_id = %s, events_total = 1 WHERE id = %s"
    refused("bundle_once_a_checkpoint", sql(update, request.checkpoint_id, other.pk))


def test_it_waits_for_the_seal_and_gives_up_in_words(
    log: Log, task: Task, ana: User, sam: User, sue: User, abe: User
) -> None:
    request = run(bundle_request(ruleset_id=signed(task, ana, sam, sue, count=1).pk, actor=abe))
    job = Job.objects.get(kind=JOB_KIND)
    assert (request.state, job.state, job.last_error) == (
        BundleState.REQUESTED,
        JobState.QUEUED,
        "Nothing is sealed yet.",
    )
    BundleRequest.objects.update(state_at=timezone.now() - timedelta(minutes=11))
    assert run(request).state == BundleState.FAILED
    assert "see the Health page" in request.error
    assert AuditEvent.objects.filter(action="bundle.failed").count() == 1
    log.seal()
    assert ready(request.ruleset, abe, log) != request


def test_a_worker_killed_in_the_middle_builds_anew(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = bundle_request(ruleset_id=ruleset.pk, actor=abe)
    part = files_path(request).with_suffix(".part")
    part.mkdir(parents=True)
    (part / "events.jsonl").write_bytes(b"half of")  # killed while it was building
    newest = Checkpoint.objects.latest("pk")
    BundleRequest.objects.update(state="building", checkpoint=newest, events_total=9)
    assert run(request).state == BundleState.SIGNING
    log.seal()
    zip_path(request).with_suffix(".zip.part").write_bytes(b"half of")  # killed while it wrote the ZIP
    assert run(request).state == BundleState.READY
    assert sha256_hex(zip_path(request).read_bytes()) == request.sha256
    assert [one.name for one in zip_path(request).parent.iterdir()] == [zip_path(request).name]


def _leave_out(folder: Path) -> None:
    for name in ("events.jsonl", "bodies.jsonl", "proofs.jsonl"):
        *rows, _last = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(rows))
    said = json.loads((folder / "decisions.json").read_bytes())
    said["rules"][-1]["acts"].pop()
    (folder / "decisions.json").write_bytes(canonical_json(said))


def _last_export_gone(folder: Path) -> None:
    rows = {
        name: (folder / name).read_bytes().splitlines(keepends=True)
        for name in ("events.jsonl", "bodies.jsonl", "proofs.jsonl")
    }
    own = [number for number, row in enumerate(rows["events.jsonl"]) if b'"chain":"ruleset:' in row]
    for name, lines in rows.items():
        (folder / name).write_bytes(b"".join(line for number, line in enumerate(lines) if number != own[-1]))


def _replaced(name: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        path = folder / name
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))

    return act


TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a decision left out": (_leave_out, "no decision approved|not in it"),
    "the newest event of the ruleset left out": (_last_export_gone, "not in it|do not verify"),
    "another prompt": (_replaced("prompt.txt", b"label Compliant", b"label Breach"), "prompt.txt is not what"),
    "another report": (_replaced(HTML, b"label Compliant", b"label Breach"), "reports are not those"),
    "another script": (_replaced("verify.py", b"ALTERED", b"INTACT!"), "fixed file"),
    "another signer": (_replaced("signatures.json", b'"name":"Sam"', b'"name":"Max"'), "not those that the events"),
    "one file more": (lambda folder: (folder / "more.txt").write_bytes(b"x"), "does not hold the files"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_the_sealer_signs_nothing_that_it_would_not_say_itself(
    what: str, ruleset: Ruleset, abe: User, log: Log
) -> None:
    tamper, words = TAMPERING[what]
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=abe))
    folder = files_path(request)
    tamper(folder)
    # Whoever took the worker over writes the statement, too.
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE rules_bundlerequest DISABLE TRIGGER pld_guard_bundle_update")
        BundleRequest.objects.update(statement=canonical_json(statement_of(Files.folder(folder))))
        cursor.execute("ALTER TABLE rules_bundlerequest ENABLE ALWAYS TRIGGER pld_guard_bundle_update")
    log.seal()
    said = BundleSignature.objects.get()
    assert said.envelope is None
    assert run(request).state == BundleState.FAILED
    assert request.error == said.fault
    assert re.search(words, said.fault), said.fault


def test_the_sealers_role_is_enough_to_sign_and_the_applications_is_not(ruleset: Ruleset, abe: User, log: Log) -> None:
    request, signer = run(bundle_request(ruleset_id=ruleset.pk, actor=abe)), signer_load()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        roles_apply()
        cursor.execute(f"SET ROLE {APPLICATION}")
        refused("permission denied", lambda: bundles_sign(signer), ProgrammingError)
        cursor.execute(f"SET ROLE {SEALER}")
        bundles_sign(signer)
        cursor.execute("RESET ROLE")
    assert run(request).state == BundleState.READY


def test_a_statement_of_other_files_is_not_signed(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=abe))
    (files_path(request) / "keys.json").write_bytes((files_path(request) / "keys.json").read_bytes() + b" ")
    log.seal()
    assert run(request).state == BundleState.FAILED


def test_a_key_replaced_meanwhile_and_files_out_of_reach_are_said_in_words(
    ruleset: Ruleset, abe: User, log: Log
) -> None:
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=abe))
    files_path(request).rename(files_path(request).with_suffix(".gone"))
    log.seal()
    assert "cannot read the files" in run(request).error
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=abe))
    key_rotate()
    log.seal()
    assert "Request the bundle again" in run(request).error


def test_after_a_week_the_file_goes_and_the_record_stays(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = ready(ruleset, abe, log)
    assert Job.objects.get(kind=EXPIRY_JOB_KIND).run_after == request.expires_at
    assert run(request, EXPIRY_JOB_KIND).state == BundleState.EXPIRED
    assert not zip_path(request).exists()
    with pytest.raises(WrongState, match="Request a new one"):
        bundle_download(request_id=request.pk, actor=abe)


def test_only_a_signed_ruleset_has_one(log: Log, task: Task, ana: User, abe: User) -> None:
    ruleset = frozen(task, ana, count=1)
    with pytest.raises(WrongState, match="signed ruleset"):
        bundle_request(ruleset_id=ruleset.pk, actor=abe)
    event = audit_record("bundle.requested", actor=abe, subject=ruleset)
    refused(
        "only a signed ruleset",
        lambda: BundleRequest.objects.create(ruleset=ruleset, requested_by=abe, event=event),
    )


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (
            "does not become ready",
            "state = 'ready', checkpoint_id = 1, events_total = 1, size = 1, sha256 = 'x', expires_at = now()",
        ),
        ("never changes", "folder = gen_random_uuid()"),
        ("never changes", "requested_by_id = requested_by_id + 1"),
    ],
)
def test_the_database_holds_a_request_to_its_way(words: str, change: str, ruleset: Ruleset, abe: User) -> None:
    request = bundle_request(ruleset_id=ruleset.pk, actor=abe)
    refused(words, sql(f"UPDATE rules_bundlerequest SET {change} WHERE id = %s", request.pk))
    refused("append-only", sql("DELETE FROM rules_bundlerequest WHERE id = %s", request.pk))


def test_the_database_holds_a_bundle_to_its_signature_and_hash(ruleset: Ruleset, abe: User, log: Log) -> None:
    request = run(bundle_request(ruleset_id=ruleset.pk, actor=abe))
    became = "UPDATE rules_bundlerequest SET state = 'ready', size = 1, sha256 = 'x', expires_at = now() WHERE id = %s"
    refused("without the log's signature", sql(became, request.pk))
    refused("handed to the log's key", sql("UPDATE rules_bundlerequest SET statement = 'x' WHERE id = %s", request.pk))
    log.seal()
    assert run(request).state == BundleState.READY
    refused("finished bundle", sql("UPDATE rules_bundlerequest SET sha256 = 'y' WHERE id = %s", request.pk))
    refused("append-only", sql("UPDATE rules_bundlesignature SET envelope = 'x'"))
    refused(
        "does not wait for a signature",
        sql(
            "INSERT INTO rules_bundlesignature (request_id, key_id, envelope, fault, at)"
            " SELECT request_id, key_id, envelope, fault, at FROM rules_bundlesignature"
        ),
    )


class TestPages:
    def test_asking_watching_and_taking(self, ruleset: Ruleset, abe: User, log: Log, client_of: ClientOf) -> None:
        browser, base = client_of(abe), f"/tasks/nda/rulesets/{ruleset.number}/bundles/"
        assert "No bundle yet" in browser.get(base).content.decode()
        assert base in browser.get(f"/tasks/nda/rulesets/{ruleset.number}/").content.decode()
        asked: Any = browser.post(f"{base}request/")
        request = BundleRequest.objects.get()
        assert asked.headers["Location"] == f"{base}{request.pk}/"
        waiting = browser.get(f"{base}{request.pk}/").content.decode()
        assert 'hx-trigger="every 1s"' in waiting
        assert browser.get(f"{base}{request.pk}/bundle.zip").status_code == 409
        ready(ruleset, abe, log)
        request.refresh_from_db()
        part = browser.get(f"{base}{request.pk}/", headers={"HX-Request": "true"}).content.decode()
        assert part.lstrip().startswith("<section")
        assert "every 1s" not in part
        assert request.sha256 in part
        assert "verify_export nda-ruleset" in part
        taken: Any = browser.get(f"{base}{request.pk}/bundle.zip")
        assert sha256_hex(b"".join(taken.streaming_content)) == request.sha256
        assert taken.headers["Content-Disposition"].startswith("attachment")
        assert "Ready" in browser.get(base).content.decode()

    def test_a_failure_is_said_with_a_way_on(self, ruleset: Ruleset, abe: User, client_of: ClientOf) -> None:
        request = bundle_request(ruleset_id=ruleset.pk, actor=abe)
        bundle_failed(request.pk, "The disk is full.")
        page = client_of(abe).get(f"/tasks/nda/rulesets/{ruleset.number}/bundles/{request.pk}/").content.decode()
        assert "The disk is full." in page
        assert "Request it again" in page

    def test_not_under_another_ruleset(
        self, ruleset: Ruleset, task: Task, ana: User, abe: User, client_of: ClientOf
    ) -> None:
        request = bundle_request(ruleset_id=ruleset.pk, actor=abe)
        approved(task, ana, 1)
        assert client_of(abe).get(f"/tasks/nda/rulesets/99/bundles/{request.pk}/").status_code == 404
        assert client_of(abe).get(f"/tasks/other/rulesets/{ruleset.number}/bundles/{request.pk}/").status_code == 404

    def test_the_list_asks_the_same_number_of_queries_for_1_and_25(
        self, ruleset: Ruleset, abe: User, client_of: ClientOf, django_assert_num_queries: Any
    ) -> None:
        browser, path = client_of(abe), f"/tasks/nda/rulesets/{ruleset.number}/bundles/"

        def failed() -> None:
            bundle_failed(bundle_request(ruleset_id=ruleset.pk, actor=abe).pk, "No.")

        failed()
        browser.get(path)
        with connection.execute_wrapper(counted := _Counter()):
            browser.get(path)
        for _more in range(24):
            failed()
        with django_assert_num_queries(counted.count):
            browser.get(path)


class _Counter:
    count = 0

    def __call__(self, execute: Any, *arguments: Any) -> Any:
        self.count += 1
        return execute(*arguments)
