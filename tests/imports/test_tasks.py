"""Tasks on their pages: made and changed by an administrator, and held to what their traces already speak."""

from collections.abc import Callable
from html import unescape

import pytest
from django.test import Client

from pld_app.models import AuditEvent, User
from rules.models import Task
from tests.factories import audit_actions, make_instruction, make_trace

type ClientOf = Callable[[User], Client]


@pytest.fixture
def admin(client_of: ClientOf, ada: User) -> Client:
    return client_of(ada)


def fields(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "name": "Promotions",
        "slug": "promotions",
        "labels": "Compliant\r\n Breach \r\n\r\n",
        "input_fields": "clause\nquestion",
        "preamble": "You check promotions.",
        "output_contract": "Answer in JSON.",
        "signers_required": "2",
        "signer_roles": ["signatory"],
    }
    return values | changes


def test_a_task_is_made_and_changed_with_an_event_each(admin: Client, ada: User) -> None:
    assert admin.post("/tasks/new/", fields()).headers["Location"] == "/tasks/promotions/"
    task = Task.objects.get()
    assert (task.labels, task.input_fields) == (["Compliant", "Breach"], ["clause", "question"])
    # The policy is no setting: it changes on its own page, by two people.
    sent = fields(name="Offers", signers_required="3")
    assert admin.post("/tasks/promotions/settings/", sent).status_code == 302
    assert audit_actions(task) == ["task.created", "task.changed"]
    changed = AuditEvent.objects.get(action="task.changed")
    assert (changed.actor, changed.data) == (ada, {"fields": ["name"], "signers_required": 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"slug": "nda"}, "already exists"),
        ({"slug": "new"}, "address of the form itself"),
        ({"slug": "../etc"}, "valid “slug”"),
        ({"labels": "One"}, "at least two labels"),
        ({"labels": "One\nTwo\nOne"}, "An entry stands twice"),
        ({"labels": "x" * 61 + "\nTwo"}, "at most 60 characters"),
        ({"labels": " \n "}, "required"),
        ({"signers_required": "1"}, "at least two signers"),
        ({"signer_roles": ["admin"]}, "not one of the available choices"),
        ({"signer_roles": []}, "required"),
        ({"teacher": "999"}, "not one of the available choices"),
        ({"preamble": "a\x00b"}, "Null characters are not allowed"),
    ],
)
def test_a_task_that_does_not_fit_is_refused_in_words(
    admin: Client, task: Task, changes: dict[str, object], message: str
) -> None:
    response = admin.post("/tasks/new/", fields(**changes))
    assert response.status_code == 422
    assert message in unescape(response.content.decode())
    assert Task.objects.get() == task


def test_a_new_task_starts_with_two_signatories_to_sign(admin: Client) -> None:
    page = admin.get("/tasks/new/").content.decode()
    assert 'name="signers_required" value="2" min="2"' in page
    assert 'value="signatory" id="id_signer_roles_0" checked' in page
    assert 'value="reviewer" id="id_signer_roles_1" checked' not in page


def test_what_traces_speak_stays_once_there_are_any(admin: Client, task: Task) -> None:
    make_trace(task)
    sent = fields(slug="other", labels="Yes\nNo", input_fields="text", name="Renamed")
    assert admin.post(f"/tasks/{task.slug}/settings/", sent).status_code == 302
    task.refresh_from_db()
    assert (task.name, task.slug) == ("Renamed", "nda")
    assert (task.labels, task.input_fields) == (["Compliant", "Breach", "Unclear"], ["clause", "question"])


def test_the_home_page_counts_what_people_review_and_nothing_seeded(admin: Client, task: Task) -> None:
    make_instruction(task)
    make_instruction(task, "If seeded, then label Breach.", is_seeded=True)
    (listed,) = admin.get("/").context["page"]
    assert (listed.open_count, listed.approved_count, listed.release_count) == (1, 0, 0)
