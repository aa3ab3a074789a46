"""What the student's side is told and what it fetched (C16, C22)."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.test import Client

from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import job_execute
from pld_app.models import Job, JobState, User
from rules.models import ChannelName, DeliveryState, PromptRead, Task, WebhookDelivery, WebhookTarget
from rules.selectors.served import served, served_at
from rules.services.publishing import release_rollback
from rules.services.reads import reads_forget
from rules.services.stopping import stop_make
from rules.services.tokens import token_create
from rules.services.webhooks import JOB_KIND, MAX_TRIES, webhook_create, webhook_retire
from tests.factories import audit_actions, make_proof
from tests.publishing import steps
from tests.publishing.test_database import refused

type ClientOf = Callable[[User], Client]
SECRET = "0123456789abcdef0123456789abcdef"
PRODUCTION = ChannelName.PRODUCTION


class Receiver:
    """A real server on this machine that keeps what it got; `status` is what it answers next."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=5)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.close()


@pytest.fixture
def target(task: Task, ada: User, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> WebhookTarget:
    monkeypatch.setenv("PLD_WEBHOOK_STUDENT", SECRET)
    return webhook_create(task=task, name="student", url=receiver.url, secret_env="PLD_WEBHOOK_STUDENT", actor=ada)


def send_all() -> None:
    for job in Job.objects.filter(kind=JOB_KIND, state=JobState.QUEUED).order_by("pk"):
        Job.objects.filter(pk=job.pk).update(run_after=steps.minutes_ago(1))
        job_execute(job_id=job.pk)


def test_every_change_is_told_signed_with_the_hashes_before_and_after(
    task: Task, ana: User, sam: User, sue: User, target: WebhookTarget, receiver: Receiver
) -> None:
    first = steps.in_production(task, ana, sam, sue)
    second = steps.again(task, ana, sam, sue)
    for channel in ChannelName:
        steps.publish(second, sam, channel)
    release_rollback(release_id=first.pk, channel=PRODUCTION, actor=sam, proof=make_proof(sam), reason="Back.")
    stop_make(task=task, actor=sam, reason="Stop.", ruleset_id=first.ruleset_id)
    send_all()
    bodies = [json.loads(body) for _headers, body in receiver.got]
    told = [
        (
            one["kind"],
            one["channel"],
            one["before"] and one["before"]["version"],
            one["after"] and one["after"]["version"],
        )
        for one in bodies
    ]
    assert told == [
        ("published", "staging", None, 1),
        ("published", "production", None, 1),
        ("published", "staging", 1, 2),
        ("published", "production", 1, 2),
        ("rolled_back", "production", 2, 1),
        ("stopped", "production", 1, None),
    ]
    assert bodies[0]["after"]["prompt_sha256"] == first.prompt_sha256
    assert first.prompt not in str(receiver.got)
    for headers, body in receiver.got:
        message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET.encode(), message, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert set(WebhookDelivery.objects.values_list("state", flat=True)) == {DeliveryState.DELIVERED}


def test_a_receiver_that_is_away_is_tried_again_under_the_same_id(
    task: Task, ana: User, sam: User, sue: User, target: WebhookTarget, receiver: Receiver
) -> None:
    release = steps.released(task, ana, sam, sue)
    steps.publish(release, sam)
    for status in (500, 302, 404):
        receiver.status = status
        send_all()
        delivery = WebhookDelivery.objects.get()
        assert (delivery.state, delivery.last_status) == (DeliveryState.WAITING, status)
        assert delivery.next_try_at is not None
    receiver.status = 204
    send_all()
    assert WebhookDelivery.objects.get().state == DeliveryState.DELIVERED
    assert len({headers["webhook-id"] for headers, _body in receiver.got}) == 1


def test_it_is_given_up_after_the_last_try(
    task: Task, ana: User, sam: User, sue: User, target: WebhookTarget, receiver: Receiver
) -> None:
    receiver.status = 500
    steps.publish(steps.released(task, ana, sam, sue), sam)
    for _turn in range(MAX_TRIES + 2):
        send_all()
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.tries, len(receiver.got)) == (DeliveryState.FAILED, MAX_TRIES, MAX_TRIES)


def test_without_a_key_or_to_a_retired_target_nothing_is_sent(
    task: Task,
    ana: User,
    sam: User,
    sue: User,
    ada: User,
    target: WebhookTarget,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    release = steps.released(task, ana, sam, sue)
    steps.publish(release, sam)
    monkeypatch.delenv("PLD_WEBHOOK_STUDENT")
    send_all()
    assert "no key" in WebhookDelivery.objects.get().last_error
    webhook_retire(target_id=target.pk, actor=ada)
    send_all()
    steps.publish(release, sam, PRODUCTION)
    assert (WebhookDelivery.objects.get().state, receiver.got) == (DeliveryState.FAILED, [])


@pytest.mark.parametrize(
    "url", ["ftp://a.example/x", "https://u:p@a.example/", "https://a.example/?key=1", "not an address", ""]
)
def test_an_address_of_another_kind_is_refused(task: Task, ada: User, url: str) -> None:
    with pytest.raises(InvalidInput):
        webhook_create(task=task, name="x", url=url, secret_env="PLD_WEBHOOK_X", actor=ada)


@pytest.mark.parametrize("name", ["PLD_SECRET_KEY", "DATABASE_URL", "PLD_WEBHOOK_A-B", "pld_webhook_x"])
def test_no_other_secret_is_used_as_its_key(task: Task, ada: User, name: str) -> None:
    with pytest.raises(InvalidInput, match="must begin"):
        webhook_create(task=task, name="x", url="https://a.example/", secret_env=name, actor=ada)


def test_a_private_address_is_refused_when_it_is_sent(
    task: Task, ana: User, sam: User, sue: User, target: WebhookTarget, receiver: Receiver, settings: Any
) -> None:
    settings.ENDPOINT_ALLOW_PRIVATE = []
    steps.publish(steps.released(task, ana, sam, sue), sam)
    send_all()
    assert "private" in WebhookDelivery.objects.get().last_error
    assert receiver.got == []


def test_neither_target_nor_message_is_rewritten(
    task: Task, ana: User, sam: User, sue: User, target: WebhookTarget
) -> None:
    steps.publish(steps.released(task, ana, sam, sue), sam)
    refused("keeps its address", lambda: WebhookTarget.objects.update(url="https://other.example/"))
    refused("keeps what it says", lambda: WebhookDelivery.objects.update(body="{}"))
    for model in (WebhookDelivery, WebhookTarget):
        refused("append-only", lambda m=model: m.objects.all()._raw_delete("default"))  # type: ignore[misc]


def test_only_an_administrator_adds_one_on_its_page(task: Task, ada: User, ana: User, client_of: ClientOf) -> None:
    with pytest.raises(NotAllowed):
        webhook_create(task=task, name="x", url="https://a.example/", secret_env="PLD_WEBHOOK_X", actor=ana)
    browser = client_of(ada)
    sent = {"name": "student", "url": "https://a.example/hook", "secret_env": "PLD_WEBHOOK_X"}
    assert browser.post("/tasks/nda/webhooks/new/", sent | {"url": "ftp://x"}).status_code == 422
    assert browser.post("/tasks/nda/webhooks/new/", sent).status_code == 302
    made = WebhookTarget.objects.get()
    assert browser.post(f"/tasks/nda/webhooks/{made.pk}/retire/").status_code == 302
    assert audit_actions(made) == ["webhook.created", "webhook.retired"]


class TestWhatWasFetched:
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        reads_forget()

    def test_c22_the_hash_is_returned_and_kept_once_a_minute_however_often_it_is_asked(
        self, task: Task, ana: User, sam: User, sue: User, ada: User, client: Client
    ) -> None:
        release = steps.in_production(task, ana, sam, sue)
        _token, secret = token_create(task=task, name="student", actor=ada)
        headers = {"Authorization": f"Bearer {secret}"}
        for _turn in range(5):
            answer: Any = client.get("/api/v1/tasks/nda/prompt", headers=headers)
            assert answer.headers["X-Prompt-SHA256"] == release.prompt_sha256
        reads_forget()  # another process
        client.get("/api/v1/tasks/nda/prompt", headers=headers | {"If-None-Match": answer.headers["ETag"]})
        read = PromptRead.objects.get(release=release)
        assert (read.prompt_sha256, read.reason, read.channel) == (release.prompt_sha256, "", PRODUCTION)
        refused("append-only", lambda: PromptRead.objects.update(prompt_sha256="0" * 64))

    def test_nothing_is_kept_as_well_with_why(self, task: Task, ada: User, client: Client) -> None:
        _token, secret = token_create(task=task, name="student", actor=ada)
        client.get("/api/v1/tasks/nda/prompt", headers={"Authorization": f"Bearer {secret}"})
        assert PromptRead.objects.get().reason == "nothing_published"

    def test_c16_what_the_student_saw_at_a_time_who_signed_and_who_published(
        self, task: Task, ana: User, sam: User, sue: User, abe: User, client_of: ClientOf
    ) -> None:
        before = steps.minutes_ago(1)
        first = steps.in_production(task, ana, sam, sue)
        between = steps.minutes_ago(0)
        second = steps.again(task, ana, sam, sue)
        for channel in ChannelName:
            steps.publish(second, sam, channel)
        after = steps.minutes_ago(0)
        seen = [served_at(task.pk, PRODUCTION, at) for at in (before, between, after)]
        assert [one.release if one else None for one in seen] == [None, first, second]
        answer = served(task, PRODUCTION, between)
        assert [one.name for one in answer.signatures] == ["Sam", "Sue"]
        at = (after + timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M")
        page = client_of(abe).get(f"/tasks/nda/served/?channel=production&at={at}").content.decode()
        assert second.prompt_sha256[8:] in page
        assert "Sue" in page
