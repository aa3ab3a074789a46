"""I13 and C18: a role, a new account's too, takes two administrators and a day or a waiver: services, ORM and SQL."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client

from pld_app.accounts import account_deactivate
from pld_app.audit import audit_record
from pld_app.errors import InvalidInput, NotAllowed, WrongState
from pld_app.models import AuditEvent, GrantStep, Notification, Role, RoleGrant, RoleGrantStep, User
from pld_app.role_grants import (
    account_propose,
    grants_waiting,
    role_confirm,
    role_override,
    role_refuse,
    role_request,
    roles_apply,
)
from tests.factories import PASSWORD, audit_actions, change_role, make_grant, make_user
from tests.governance.racing import racers, rounds

type ClientOf = Callable[[User], Client]
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(transactional_db: None) -> User:
    return make_user("ada", Role.ADMIN)


@pytest.fixture
def eve(transactional_db: None) -> User:
    """Another administrator."""
    return make_user("eve", Role.ADMIN)


@pytest.fixture
def sam(transactional_db: None) -> User:
    return make_user("sam", Role.SIGNATORY)


def ask(user: User, by: User, role: Role = Role.AUDITOR, **fields: Any) -> RoleGrant:
    return role_request(user_id=user.pk, role=role, by=by, **({"domain": "", "reason": "She moves."} | fields))


def a_day_later(hours: float = 24.1) -> None:
    """Every confirmation is so much older, as only the owner of the table can make it."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE pld_app_rolegrantstep DISABLE TRIGGER pld_append_only")
        cursor.execute("UPDATE pld_app_rolegrantstep SET at = at - %s * interval '1 hour'", [hours])
        cursor.execute("ALTER TABLE pld_app_rolegrantstep ENABLE ALWAYS TRIGGER pld_append_only")


def role_of(user: User) -> str:
    return User.objects.get(pk=user.pk).role


def test_one_asks_a_second_confirms_and_a_day_passes(ada: User, eve: User, sam: User) -> None:
    grant = ask(sam, ada)
    assert Notification.objects.get(kind="role.requested").user == eve
    assert roles_apply() == 0
    role_confirm(grant_id=grant.pk, by=eve)
    assert (roles_apply(), role_of(sam)) == (0, Role.SIGNATORY)
    a_day_later(23.9)
    assert roles_apply() == 0
    a_day_later(0.2)
    assert (roles_apply(), roles_apply()) == (1, 0)
    assert (role_of(sam), grants_waiting()) == (Role.AUDITOR, [])
    assert audit_actions(sam) == ["role.requested", "role.confirmed", "account.role_changed"]
    changed = AuditEvent.objects.get(action="account.role_changed")
    assert (changed.actor, changed.data["before"], changed.data["grant"]) == (None, "signatory", grant.pk)
    assert Notification.objects.filter(user=sam, kind="role.changed").exists()


def test_the_wait_is_waived_on_record_and_everybody_who_watches_is_told(ada: User, eve: User, sam: User) -> None:
    abe = make_user("abe", Role.AUDITOR)
    grant = ask(sam, ada)
    with pytest.raises(WrongState, match="confirms this role first"):
        role_override(grant_id=grant.pk, by=eve, reason="Now.")
    role_confirm(grant_id=grant.pk, by=eve)
    with pytest.raises(InvalidInput, match="Say why"):
        role_override(grant_id=grant.pk, by=eve, reason=" ")
    with pytest.raises(NotAllowed, match="second administrator"):
        role_override(grant_id=grant.pk, by=ada, reason="Now.")
    role_override(grant_id=grant.pk, by=eve, reason="Nobody else signs this week.")
    assert role_of(sam) == Role.AUDITOR
    assert audit_actions(sam)[2:] == ["role.overridden", "account.role_changed"]
    told = set(Notification.objects.filter(kind="role.overridden").values_list("user__username", flat=True))
    assert told == {"ada", abe.username}


def test_who_may_do_what(ada: User, eve: User, sam: User) -> None:
    with pytest.raises(InvalidInput, match="another administrator"):
        ask(ada, ada)
    with pytest.raises(NotAllowed):
        ask(ada, sam)
    grant = ask(sam, ada)
    with pytest.raises(WrongState, match="waits already"):
        ask(sam, eve, Role.ADMIN)
    for person in (ada, sam):
        with pytest.raises(NotAllowed):
            role_confirm(grant_id=grant.pk, by=person)
    role_refuse(grant_id=grant.pk, by=ada)
    with pytest.raises(WrongState, match="decided already"):
        role_confirm(grant_id=grant.pk, by=eve)
    assert role_of(sam) == Role.SIGNATORY


def test_an_account_is_made_closed_and_opens_with_its_role(ada: User, eve: User) -> None:
    kim = account_propose(by=ada, username="kim", display_name="Kim", role="signatory", password=PASSWORD)
    assert not Client().login(username="kim", password=PASSWORD)
    (waiting,) = grants_waiting()
    role_confirm(grant_id=waiting.grant.pk, by=eve)
    a_day_later()
    assert roles_apply() == 1
    kim.refresh_from_db()
    assert (kim.is_active, kim.role) == (True, Role.SIGNATORY)


def test_a_closed_account_is_not_opened_again(ada: User, eve: User, sam: User) -> None:
    grant = make_grant(sam, Role.AUDITOR, by=ada, second=eve)
    account_deactivate(user_id=sam.pk, by=ada)
    a_day_later()
    assert roles_apply() == 0
    with pytest.raises(WrongState, match="not opened again"):
        role_override(grant_id=grant.pk, by=eve, reason="Now.")
    with pytest.raises(IntegrityError, match="not opened again"):
        step(grant, "applied", None)
    with pytest.raises(WrongState, match="is closed"):
        ask(sam, eve)
    with pytest.raises(IntegrityError, match="by two administrators"):
        User.objects.filter(pk=sam.pk).update(is_active=True)


BY_TWO = "by two administrators"


def test_past_the_service_no_role_changes_without_its_steps(ada: User, eve: User, sam: User) -> None:
    for change in ({"role": Role.ADMIN}, {"role": Role.REVIEWER, "domain": "legal"}):
        with pytest.raises(IntegrityError, match=BY_TWO):
            User.objects.filter(pk=sam.pk).update(**change)
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match=BY_TWO):
        cursor.execute("UPDATE pld_app_user SET role = 'admin' WHERE username = 'sam'")
    change_role(sam, Role.AUDITOR, by=ada)
    with pytest.raises(IntegrityError, match=BY_TWO):  # a grant of before serves no change of later
        User.objects.filter(pk=sam.pk).update(role=Role.SIGNATORY)
    with pytest.raises(IntegrityError, match=BY_TWO):
        change_with_event(sam, ada)


@transaction.atomic
def change_with_event(user: User, by: User) -> None:
    """What sufficed before there were grants."""
    User.objects.filter(pk=user.pk).update(role=Role.SIGNATORY)
    audit_record("account.role_changed", actor=by, subject=user, data={"before": "auditor", "after": "signatory"})


def step(grant: RoleGrant, kind: str, actor: User | None, *, action: str = "", reason: str = "x") -> None:
    """A step past the service, with its event."""
    with transaction.atomic():
        name = action or ("account.role_changed" if kind == "applied" else f"role.{kind}")
        event = audit_record(name, actor=actor, subject=grant.user)
        values = {"grant": grant, "user": grant.user, "kind": kind, "actor": actor, "reason": reason}
        RoleGrantStep.objects.create(event=event, **values)


def test_the_database_refuses_every_step_out_of_order(ada: User, eve: User, sam: User) -> None:
    gone = make_user("gone", Role.ADMIN)
    account_deactivate(user_id=gone.pk, by=ada)
    grant = ask(sam, ada)
    attacks: list[tuple[str, Callable[[], None]]] = [
        ("second administrator confirms", partial(step, grant, "confirmed", ada)),
        ("only an active administrator", partial(step, grant, "confirmed", sam)),
        ("only an active administrator", partial(step, grant, "confirmed", gone)),
        ("second administrator confirms", partial(step, grant, "overridden", eve)),
        ("second administrator confirms", partial(step, grant, "applied", None)),
        ("own audit event", partial(step, grant, "confirmed", eve, action="role.refused")),
    ]
    for words, act in attacks:
        with pytest.raises(IntegrityError, match=words):
            act()
    role_confirm(grant_id=grant.pk, by=eve)
    for words, act in (
        ("a day after", partial(step, grant, "applied", None)),
        ("role_grant_step_by_whom", partial(step, grant, "overridden", eve, reason="")),
        ("role_grant_step_once", partial(step, grant, "confirmed", eve)),
    ):
        with pytest.raises(IntegrityError, match=words):
            act()
    for statement in ("UPDATE {} SET id = id", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
        for table in ("pld_app_rolegrant", "pld_app_rolegrantstep"):
            with connection.cursor() as cursor, pytest.raises(DatabaseError, match="append-only"):
                cursor.execute(statement.format(table))


def forge_account(*, actor: User | None, is_active: bool, with_event: bool = True) -> None:
    with transaction.atomic():
        user = User(username="mallory", display_name="M", role=Role.ADMIN, password="x", is_active=is_active)
        user.save()
        if with_event:
            audit_record("account.created", actor=actor, subject=user)


def test_no_account_commits_without_its_event_nor_open_by_an_administrator(ada: User) -> None:
    for forged in (
        partial(forge_account, actor=None, is_active=True, with_event=False),
        partial(forge_account, actor=None, is_active=False, with_event=False),
        partial(forge_account, actor=ada, is_active=True),
    ):
        with pytest.raises(IntegrityError, match="made beside its event"):
            forged()
    assert not User.objects.filter(username="mallory").exists()
    forge_account(actor=ada, is_active=False)
    mallory = User.objects.get(username="mallory")
    with pytest.raises(IntegrityError, match="not opened again"):
        forge_grant(mallory, ada)


@transaction.atomic
def forge_grant(user: User, by: User) -> None:
    event = audit_record("role.requested", actor=by, subject=user)
    RoleGrant.objects.create(user=user, role=user.role, reason="x", requested_by=by, event=event)


def test_a_refusal_against_a_waiver_ends_in_one_of_them(ada: User, eve: User) -> None:
    seen: set[bool] = set()
    with racers(2) as people:
        for number in range(rounds(20)):
            signer = make_user(f"s{number}", Role.SIGNATORY)
            grant = make_grant(signer, Role.AUDITOR, by=ada, second=eve)
            outcomes = people.race(
                partial(role_override, grant_id=grant.pk, by=eve, reason="Now."),
                partial(role_refuse, grant_id=grant.pk, by=ada),
            )
            assert [one is None for one in outcomes].count(True) == 1
            applied = grant.steps.filter(kind=GrantStep.APPLIED).exists()
            assert applied == (outcomes[0] is None) == (role_of(signer) == Role.AUDITOR)
            seen.add(applied)


def test_the_pages_lead_through_it(ada: User, eve: User, sam: User, client_of: ClientOf) -> None:
    first, second = client_of(ada), client_of(eve)
    page = first.get(f"/accounts/{sam.pk}/role/").content.decode()
    assert "Another role for Sam" in page
    form = {"role": "reviewer", "domain": "", "reason": "She moves."}
    assert first.post(f"/accounts/{sam.pk}/role/", form).status_code == 422
    assert first.post(f"/accounts/{sam.pk}/role/", form | {"domain": "legal"}).status_code == 302
    grant = RoleGrant.objects.get()
    assert "another administrator confirms it" in first.get("/accounts/").content.decode()
    assert first.post(f"/accounts/roles/{grant.pk}/confirm/").status_code == 403
    assert second.post(f"/accounts/roles/{grant.pk}/confirm/").status_code == 302
    assert "it takes effect at" in second.get("/accounts/").content.decode()
    assert second.post(f"/accounts/roles/{grant.pk}/override/", {"reason": ""}).status_code == 422
    assert second.post(f"/accounts/roles/{grant.pk}/refuse/").status_code == 302
    assert second.post(f"/accounts/roles/{grant.pk}/refuse/").status_code == 409
    assert "None. A role is asked for" in second.get("/accounts/").content.decode()
