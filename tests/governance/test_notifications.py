"""Messages to people: one inbox each, read marks, and e-mail by a job after the transaction, without any content."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core import mail
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries, Settings

from pld_app.jobs import job_execute
from pld_app.models import Job, JobState, MailChoice, Notification, User
from pld_app.notifications import kind_of, notifications_read, notify, unread_count

type ClientOf = Callable[[User], Client]


@pytest.fixture
def mailing(settings: Settings, sam: User) -> None:
    settings.MAIL_CONFIGURED, settings.PUBLIC_URL = True, "https://review.example"
    User.objects.filter(pk=sam.pk).update(email="sam@bank.example")
    sam.refresh_from_db()


def tell(*users: User, **parts: str) -> list[Notification]:
    with transaction.atomic():
        return notify(users, "factor.changed", url="/security/", **({"what": "a secret of a rule"} | parts))


def test_a_message_arrives_once_and_is_read(sam: User, sue: User, client_of: ClientOf) -> None:
    tell(sam, sam, sue)
    assert (unread_count(sam), unread_count(sue)) == (1, 1)
    browser = client_of(sam)
    page = browser.get("/inbox/").content.decode()
    assert "On your account: a secret of a rule." in page
    assert "unread" in browser.get("/").content.decode()
    one, hers = (Notification.objects.get(user=user) for user in (sam, sue))
    assert browser.post(f"/inbox/{one.pk}/open/").headers["Location"] == "/security/"
    assert browser.post(f"/inbox/{hers.pk}/open/").headers["Location"] == "/inbox/"
    assert (unread_count(sam), unread_count(sue)) == (0, 1)
    tell(sam)
    assert notifications_read(user=sam) == 1


def test_a_closed_account_gets_none_and_an_unknown_kind_is_a_mistake(sam: User) -> None:
    User.objects.filter(pk=sam.pk).update(is_active=False)
    assert tell(User.objects.get(pk=sam.pk)) == []
    with pytest.raises(LookupError):
        notify([sam], "no.such_kind")


def test_words_with_other_places_do_not_break_the_inbox(sam: User, client_of: ClientOf) -> None:
    Notification.objects.create(user=sam, kind="factor.changed", parts={"other": "x"})
    Notification.objects.create(user=sam, kind="of.another_version", parts={})
    assert client_of(sam).get("/inbox/").status_code == 200


def test_without_a_mail_server_nothing_is_queued(sam: User) -> None:
    tell(sam)
    assert not Job.objects.exists()


@pytest.mark.usefixtures("mailing")
class TestMail:
    def send(self) -> Job:
        job = Job.objects.get()
        job_execute(job_id=job.pk)
        job.refresh_from_db()
        return job

    def test_a_mail_says_what_kind_and_where_and_nothing_else(self, sam: User) -> None:
        tell(sam)
        assert mail.outbox == []  # not in the transaction: a job sends it
        assert self.send().state == JobState.DONE
        (sent,) = mail.outbox
        assert sent.to == ["sam@bank.example"]
        assert sent.subject == "PLD Review: A way to prove it is you was changed"
        assert "https://review.example/security/" in str(sent.body)
        assert "a secret of a rule" not in str(sent.body) + sent.subject
        assert Notification.objects.get().mailed_at is not None

    def test_a_mail_sent_already_is_not_sent_again(self, sam: User) -> None:
        (note,) = tell(sam)
        self.send()
        Job.objects.update(state=JobState.QUEUED)
        self.send()
        assert len(mail.outbox) == 1
        assert sent_id(mail.outbox[0]) == f"<notification-{note.pk}@localhost>"

    def test_a_message_undone_is_not_mailed(self, sam: User) -> None:
        with transaction.atomic():
            notify([sam], "factor.changed", what="x")
            transaction.set_rollback(True)
        assert not Job.objects.exists()

    def test_people_choose_by_kind(self, sam: User, client_of: ClientOf) -> None:
        browser = client_of(sam)
        assert browser.post("/inbox/mail/", {"kind": ["signing.locked", "no.such_kind"]}).status_code == 302
        assert MailChoice.objects.get(kind="signing.locked").wanted
        assert not MailChoice.objects.filter(kind="no.such_kind").exists()
        tell(sam)
        assert not Job.objects.exists()
        browser.post("/inbox/mail/", {"kind": ["factor.changed"]})
        tell(sam)
        assert Job.objects.count() == 1

    def test_a_mail_server_that_refuses_is_said_in_the_inbox(
        self, sam: User, client_of: ClientOf, settings: Settings
    ) -> None:
        tell(sam)
        settings.MAILERS = {
            "default": {
                "BACKEND": "django.core.mail.backends.smtp.EmailBackend",
                "OPTIONS": {"host": "127.0.0.1", "port": 9, "timeout": 1},
            }
        }
        for _attempt in range(Job.MAX_ATTEMPTS):
            Job.objects.update(run_after=Notification.objects.get().at)
            job = self.send()
        assert job.state == JobState.DEAD
        assert "could not be sent" in client_of(sam).get("/inbox/").content.decode()


def sent_id(message: Any) -> str:
    return str(message.extra_headers["Message-ID"])


def test_the_inbox_costs_the_same_for_1_and_25_messages(
    sam: User, client_of: ClientOf, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    browser = client_of(sam)
    tell(sam)
    browser.get("/inbox/")
    with CaptureQueriesContext(connection) as few:
        browser.get("/inbox/")
    for _number in range(30):
        tell(sam)
    with django_assert_num_queries(len(few)):
        assert len(browser.get("/inbox/").context["page"].object_list) == 25


def test_every_kind_has_words() -> None:
    for name in ("signing.locked", "factor.reset", "factor.changed", "role.changed"):
        assert kind_of(name).label != name
