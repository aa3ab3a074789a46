"""The address of one task with the objects of another: nothing is shown, changed or served across tasks."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from pld_app.accounts import account_set_password
from pld_app.models import AuditEvent, Role, User
from rules.models import Instruction, Publication, Task
from rules.services import signing
from rules.services.tokens import token_create
from tests.factories import PROOF, approve_directly, change_role, make_instruction, make_task
from tests.publishing import steps
from tests.test_permissions import METHODS, PATHS, TABLE, Scene, status_and_events

type ClientOf = Callable[[User], Client]
NESTED = [name for name, path in PATHS.items() if path.startswith("tasks/<slug:slug>/") and path.count("<") > 1]


def test_there_are_such_addresses() -> None:
    assert len(NESTED) > 20


def test_an_object_is_found_only_under_its_own_task(scene: Scene) -> None:
    make_task("other")
    leaks = []
    for name in NESTED:
        url = scene.url(name).replace("/tasks/nda/", "/tasks/other/")
        for method in METHODS:
            for who in sorted(TABLE[name].get(method, ())):
                response, written = status_and_events(scene, who, method, url)
                if response.status_code not in {404, 422} or written or "copies" in response.content.decode():
                    leaks.append((name, method, who, response.status_code, written))
    assert leaks == []


@pytest.fixture
def other(ana: User) -> Task:
    """Another task with a draft of its own."""
    task = make_task("other")
    steps.draft(task, ana, 1)
    return task


def test_a_release_of_another_task_goes_to_no_channel(
    task: Task, other: Task, ana: User, sam: User, sue: User, client_of: ClientOf
) -> None:
    release = steps.in_production(task, ana, sam, sue)
    before = Publication.objects.count()
    for action in ("publish", "roll-back"):
        fields = {"newest": 0, "channel": "staging", "release": release.pk, **PROOF, "reason": "x"}
        response = client_of(sam).post(f"/tasks/other/releases/{action}/", fields)
        assert response.status_code == 422
    assert Publication.objects.count() == before


def test_an_instruction_of_another_task_enters_no_ruleset(
    task: Task, other: Task, ana: User, client_of: ClientOf
) -> None:
    foreign = approve_directly(make_instruction(task), ana)
    ruleset = other.rulesets.get()
    response = client_of(ana).post(
        f"/tasks/other/rulesets/{ruleset.number}/items/add/", {"instruction": foreign.pk, "version": ruleset.version}
    )
    assert response.status_code == 409
    assert ruleset.items.count() == 1


def test_an_item_of_another_ruleset_is_neither_moved_nor_removed(
    task: Task, other: Task, ana: User, client_of: ClientOf
) -> None:
    item = steps.draft(task, ana, 2).items.get(position=2)
    ruleset = other.rulesets.get()
    for action in ("move", "remove"):
        path = f"/tasks/other/rulesets/{ruleset.number}/items/{item.pk}/{action}/"
        assert client_of(ana).post(path, {"to": 1, "version": ruleset.version}).status_code == 409
    item.refresh_from_db()
    assert item.position == 2


def test_a_token_opens_its_own_task_alone(task: Task, other: Task, ana: User, sam: User, sue: User, ada: User) -> None:
    steps.in_production(task, ana, sam, sue)
    _token, secret = token_create(task=other, name="student", actor=ada)
    headers = {"Authorization": f"Bearer {secret}"}
    answers = [
        Client().get(f"/api/v1/tasks/{slug}/prompt", headers=headers) for slug in ("nda", "nothing", "NDA", "other")
    ]
    assert [one.status_code for one in answers] == [403, 403, 403, 404]
    # Nothing tells a task that exists from one that does not.
    assert answers[0].content == answers[1].content == answers[2].content


def test_the_tag_of_one_task_is_no_proof_for_another(
    task: Task, other: Task, ana: User, sam: User, sue: User, ada: User
) -> None:
    release = steps.in_production(task, ana, sam, sue)
    _token, secret = token_create(task=other, name="student", actor=ada)
    headers = {
        "Authorization": f"Bearer {secret}",
        "If-None-Match": f'"{release.prompt_sha256}-{release.version}"',
    }
    assert Client().get("/api/v1/tasks/other/prompt", headers=headers).status_code == 404
    assert Client().get("/api/v1/tasks/nda/prompt", headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/tasks/nda/", "/tasks/nda/review/", "/accounts/", "/audit/", "/tasks/nda/tokens/"])
def test_a_token_opens_no_page(task: Task, ada: User, path: str) -> None:
    _token, secret = token_create(task=task, name="student", actor=ada)
    response: Any = Client().get(path, headers={"Authorization": f"Bearer {secret}"})
    assert response.status_code == 302
    assert "/sign-in/" in response.headers["Location"]


def test_a_session_opens_no_prompt(task: Task, ana: User, sam: User, sue: User, client_of: ClientOf) -> None:
    steps.in_production(task, ana, sam, sue)
    assert client_of(ana).get("/api/v1/tasks/nda/prompt").status_code == 401


def test_a_role_taken_away_counts_at_the_next_request(task: Task, ana: User, ada: User, client_of: ClientOf) -> None:
    one = make_instruction(task)
    browser = client_of(ana)
    change_role(ana, Role.AUDITOR, by=ada)
    response = browser.post(f"/tasks/nda/review/{one.number}/approve/", {"version": 1})
    assert response.headers["Location"].startswith("/sign-in/")  # the session ended with the role
    assert client_of(User.objects.get(pk=ana.pk)).post(response.request["PATH_INFO"]).status_code == 403
    assert Instruction.objects.get().status == "proposed"
    assert not AuditEvent.objects.filter(action="instruction.approved").exists()


def test_a_role_taken_away_while_the_password_is_checked_signs_nothing(
    task: Task, ana: User, sam: User, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    ruleset = steps.frozen(task, ana)
    # The row changes after the password was found right and before the signature is written.
    confirmed = signing.reauthenticate

    def then_demoted(**kwargs: Any) -> Any:
        at = confirmed(**kwargs)
        change_role(sam, Role.AUDITOR, by=ada)
        return at

    monkeypatch.setattr(signing, "reauthenticate", then_demoted)
    with pytest.raises(Exception, match="may not sign"):
        steps.sign(ruleset, sam)
    assert ruleset.signatures.count() == 0


def test_a_new_password_ends_every_session(sam: User, client_of: ClientOf) -> None:
    browser = client_of(sam)
    assert browser.get("/").status_code == 200
    account_set_password(user_id=sam.pk, password="another long password")
    assert browser.get("/").status_code == 302
