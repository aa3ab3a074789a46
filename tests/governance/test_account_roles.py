"""C18: nobody gives themselves a role, by the service, the ORM or SQL; another administrator does, on record."""

import pytest
from django.db import IntegrityError, connection, transaction

from pld_app.accounts import account_set_role
from pld_app.audit import audit_record
from pld_app.errors import NotAllowed, Refusal
from pld_app.models import Role, User
from tests.factories import audit_actions, make_user

WORDS = "a role is given by another administrator"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada(transactional_db: None) -> User:
    return make_user("ada", Role.ADMIN)


@pytest.fixture
def sam(transactional_db: None) -> User:
    return make_user("sam", Role.SIGNATORY)


def test_another_administrator_changes_a_role_on_record(ada: User, sam: User) -> None:
    account_set_role(user_id=sam.pk, role=Role.AUDITOR, domain="", by=ada)
    sam.refresh_from_db()
    assert sam.role == Role.AUDITOR
    assert audit_actions(sam) == ["account.role_changed"]


def test_nobody_changes_their_own(ada: User, sam: User) -> None:
    with pytest.raises(Refusal, match="another administrator"):
        account_set_role(user_id=ada.pk, role=Role.SIGNATORY, domain="", by=ada)
    with pytest.raises(NotAllowed):
        account_set_role(user_id=ada.pk, role=Role.AUDITOR, domain="", by=sam)


def forge(user: User, actor: User | None, *, before: str, after: str) -> None:
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(role=Role.SIGNATORY, domain="")
        data = {"before": before, "after": after}
        audit_record("account.role_changed", actor=actor, subject=user, data=data)


def test_past_the_service_the_database_refuses(ada: User, sam: User) -> None:
    kim = make_user("kim", Role.ADMIN)
    eve = make_user("eve", Role.AUDITOR)
    gone = make_user("gone", Role.ADMIN)
    User.objects.filter(pk=gone.pk).update(is_active=False)
    with pytest.raises(IntegrityError, match=WORDS):
        User.objects.filter(pk=eve.pk).update(role=Role.SIGNATORY)
    for actor in (None, ada, sam, gone):  # the system, themselves, a signatory, a closed account
        with pytest.raises(IntegrityError, match=WORDS):
            forge(ada, actor, before="admin", after="signatory")
    with pytest.raises(IntegrityError, match=WORDS):
        forge(ada, kim, before="admin", after="auditor")
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match=WORDS):
        cursor.execute("UPDATE pld_app_user SET role = 'admin' WHERE username = 'eve'")
    forge(ada, kim, before="admin", after="signatory")
    with pytest.raises(IntegrityError, match=WORDS):  # an event of before serves no change of later
        User.objects.filter(pk=ada.pk).update(role=Role.ADMIN)
    assert set(User.objects.filter(role=Role.SIGNATORY).values_list("username", flat=True)) == {"sam", "ada"}
