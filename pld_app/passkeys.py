"""WebAuthn: what the browser is asked and what its answers must hold. User verification is always required."""

import json
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from pld_app.assertions import Evidence, EvidenceInvalid, b64, public_key_pem, unb64
from pld_app.models import Passkey, User


class PasskeyRefused(Exception):
    """The answer of the browser is not what was asked for; the text is for the log, not for people."""


@dataclass(frozen=True)
class Site:
    """What passkeys are bound to: the host's name and its exact origin."""

    rp_id: str
    origin: str


def site_of(request: HttpRequest) -> Site:
    """The site as configured, or as this request reached it: its host is one of the allowed hosts."""
    origin = f"{request.scheme}://{request.get_host()}"
    host = request.get_host().rpartition(":")[0] if ":" in request.get_host() else request.get_host()
    return Site(settings.PASSKEY_RP_ID or host, settings.PASSKEY_ORIGIN or origin)


def _descriptors(passkeys: list[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    known = {one.value: one for one in AuthenticatorTransport}
    return [
        PublicKeyCredentialDescriptor(
            id=bytes(one.credential_id), transports=[known[name] for name in one.transports if name in known]
        )
        for one in passkeys
    ]


def registration_options(*, site: Site, user: User, challenge: bytes, existing: list[Passkey]) -> dict[str, Any]:
    """The JSON for `navigator.credentials.create`."""
    options = generate_registration_options(
        rp_id=site.rp_id,
        rp_name=settings.SITE_NAME,
        user_name=user.username,
        user_display_name=user.display_name,
        # Not the name: the handle must say nothing about a person.
        user_id=str(user.pk).encode(),
        challenge=challenge,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=_descriptors(existing),
    )
    return _json(options_to_json(options))


def authentication_options(*, site: Site, challenge: bytes, passkeys: list[Passkey]) -> dict[str, Any]:
    """The JSON for `navigator.credentials.get`."""
    options = generate_authentication_options(
        rp_id=site.rp_id,
        challenge=challenge,
        allow_credentials=_descriptors(passkeys),
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return _json(options_to_json(options))


def _json(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text)
    return value


def registration_verify(*, site: Site, answer: str, challenge: bytes) -> Passkey:
    """The credential of this answer, not saved and without user and name; raises PasskeyRefused."""
    try:
        found = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            require_user_verification=True,
        )
        transports = json.loads(answer)["response"].get("transports", [])
    except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PasskeyRefused(str(error)) from error
    known = {one.value for one in AuthenticatorTransport}
    return Passkey(
        credential_id=found.credential_id,
        public_key=found.credential_public_key,
        sign_count=found.sign_count,
        transports=[one for one in transports if one in known] if isinstance(transports, list) else [],
        aaguid=found.aaguid,
        is_synced=found.credential_backed_up,
    )


def credential_id_of(answer: str) -> bytes:
    """Which credential answered; raises PasskeyRefused for what is no answer."""
    try:
        return unb64(json.loads(answer)["id"])
    except (EvidenceInvalid, ValueError, KeyError, TypeError) as error:
        raise PasskeyRefused("no credential id") from error


def authentication_verify(*, site: Site, answer: str, challenge: bytes, passkey: Passkey) -> int:
    """The authenticator's new counter; raises PasskeyRefused, also when the counter did not move (a copied key)."""
    try:
        found = verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.rp_id,
            expected_origin=site.origin,
            credential_public_key=bytes(passkey.public_key),
            credential_current_sign_count=passkey.sign_count,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PasskeyRefused(str(error)) from error
    return found.new_sign_count


def evidence_of(*, site: Site, answer: str, statement: str, passkey: Passkey) -> dict[str, Any]:
    """What is kept of a verified answer, as `pld_app.assertions` reads it."""
    response = _json(answer)["response"]
    return Evidence(
        statement=statement,
        rp_id=site.rp_id,
        origin=site.origin,
        credential_id=b64(bytes(passkey.credential_id)),
        public_key=b64(bytes(passkey.public_key)),
        public_key_pem=public_key_pem(bytes(passkey.public_key)),
        authenticator_data=response["authenticatorData"],
        client_data=response["clientDataJSON"],
        signature=response["signature"],
    ).model_dump()
