"""Second factors: enrolment, use, removal, reset; what the database holds them to."""

import pytest
from django.utils import timezone

from pld_app.canonical import sha256_hex
from pld_app.models import Ceremony, Passkey, SsoIdentity, TotpDevice, User
from pld_app.reauthentication import Act, ceremony_open
from tests.factories import make_session
from tests.governance.authenticator import Authenticator
from tests.publishing.test_database import refused


def test_the_database_holds_factors_to_their_person(sam: User, sue: User) -> None:
    device = TotpDevice.objects.create(user=sam, secret=b"x", last_step=7)
    Authenticator().enrolled(sam)
    SsoIdentity.objects.create(user=sam, issuer="https://id.example", subject="1")
    for model, changes in (
        (TotpDevice, [{"user": sue}, {"last_step": 6}]),
        (Passkey, [{"user": sue}, {"public_key": b"other"}, {"credential_id": b"other"}, {"sign_count": -1}]),
        (SsoIdentity, [{"user": sue}, {"subject": "2"}, {"issuer": "https://other.example"}]),
    ):
        for change in changes:
            refused("keeps its person|only grows|stays bound", lambda: model.objects.update(**change))  # type: ignore[attr-defined]  # noqa: B023
        refused("append-only", lambda: model.objects.all().delete())  # type: ignore[attr-defined]  # noqa: B023
        model.objects.update(removed_at=timezone.now())  # type: ignore[attr-defined]
        refused("keeps its person|only grows|stays bound", lambda: model.objects.update(removed_at=None))  # type: ignore[attr-defined]  # noqa: B023
    assert TotpDevice.objects.get().pk == device.pk


def test_a_question_is_used_once(sam: User) -> None:
    act = Act(purpose="sign", subject_type="ruleset", subject_id="1", content_sha256="a" * 64, meaning="approved")
    one = ceremony_open(kind="passkey", actor=sam, session_key=make_session(sam), act=act, number=1)
    assert '"nonce"' in one.statement
    assert len(sha256_hex(one.statement)) == 64
    mine = Ceremony.objects.filter(pk=one.pk)
    refused("answered and used once", lambda: mine.update(meaning="reviewed"))
    mine.update(answered_at=timezone.now())
    refused("answered and used once", lambda: mine.update(answered_at=None))
    mine.update(used_at=timezone.now())
    refused("answered and used once", lambda: mine.update(used_at=None))


@pytest.mark.django_db
def test_one_app_a_person(sam: User) -> None:
    TotpDevice.objects.create(user=sam, secret=b"x")
    refused("totp_one_per_person", lambda: TotpDevice.objects.create(user=sam, secret=b"y"))
