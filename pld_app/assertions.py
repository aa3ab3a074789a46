"""A passkey's assertion over a statement, verified from what was kept and nothing else: no database, no settings.

`Evidence` is what an export carries. Anybody can repeat the check with stock tools: the signature is over the
authenticator data followed by the SHA-256 of the client data, and the challenge inside the client data is the SHA-256
of the statement (W3C Web Authentication Level 3, section 7.2).
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import BaseModel, ConfigDict, ValidationError
from webauthn.helpers import decode_credential_public_key, decoded_public_key_to_cryptography
from webauthn.helpers.cose import COSEAlgorithmIdentifier as Algorithm
from webauthn.helpers.exceptions import WebAuthnException

_USER_PRESENT, _USER_VERIFIED = 0x01, 0x04
ES256, RS256, EDDSA = Algorithm.ECDSA_SHA_256, Algorithm.RSASSA_PKCS1_v1_5_SHA_256, Algorithm.EDDSA
_HEAD = 37  # hash of the relying party's id, flags, counter


class EvidenceInvalid(ValueError):
    """The evidence does not show what it claims; the text says which part."""


class Evidence(BaseModel):
    """A signed statement. Binary values are base64url without padding; the key is also given as PEM for stock tools."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_id: Literal["passkey-assertion/v1"] = "passkey-assertion/v1"
    statement: str
    rp_id: str
    origin: str
    credential_id: str
    public_key: str
    public_key_pem: str
    authenticator_data: str
    client_data: str
    signature: str


def b64(data: bytes) -> str:
    """base64url without padding, as WebAuthn writes bytes in JSON."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of base64url without padding; raises EvidenceInvalid for anything else, another spelling included."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceInvalid("not base64url") from error
    if b64(data) != text:
        raise EvidenceInvalid("not canonical base64url")
    return data


def public_key_pem(cose: bytes) -> str:
    """A COSE key in the form that stock tools read; raises EvidenceInvalid for what is no key."""
    try:
        decoded = decode_credential_public_key(cose)
        key = decoded_public_key_to_cryptography(decoded)
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise EvidenceInvalid("the key cannot be read") from error
    # The very algorithms that `_signature_verify` knows: a key says one of them.
    if decoded.alg not in {ES256, RS256, EDDSA}:
        raise EvidenceInvalid("the key is of an unknown kind")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def assertion_verify(evidence: Mapping[str, Any]) -> dict[str, Any]:  # JSON as it was kept
    """The statement that the passkey signed, as JSON; raises EvidenceInvalid when anything of it does not fit.

    What it shows: whoever holds the private key of this credential confirmed this very statement at this site, and
    their device checked that it was them (user verification). Whose key it is, the record of enrolment says;
    `credential_id` is its name there and not part of what was signed.
    """
    try:
        given = Evidence.model_validate(dict(evidence))
    except ValidationError as error:
        raise EvidenceInvalid("fields are missing or unknown") from error
    client_bytes, authenticator = unb64(given.client_data), unb64(given.authenticator_data)
    client, statement = _object(client_bytes, "client data"), _object(given.statement.encode(), "statement")
    if client.get("type") != "webauthn.get":
        raise EvidenceInvalid("this is no assertion")
    if client.get("challenge") != b64(hashlib.sha256(given.statement.encode()).digest()):
        raise EvidenceInvalid("the passkey confirmed another statement")
    if client.get("origin") != given.origin or client.get("crossOrigin", False) is not False:
        raise EvidenceInvalid("it was confirmed at another site")
    if len(authenticator) < _HEAD or authenticator[:32] != hashlib.sha256(given.rp_id.encode()).digest():
        raise EvidenceInvalid("it was confirmed for another site")
    if authenticator[32] & (_USER_PRESENT | _USER_VERIFIED) != (_USER_PRESENT | _USER_VERIFIED):
        raise EvidenceInvalid("the device did not verify the person")
    if public_key_pem(unb64(given.public_key)) != given.public_key_pem:
        raise EvidenceInvalid("the two forms of the key differ")
    signed = authenticator + hashlib.sha256(client_bytes).digest()
    _signature_verify(given.public_key_pem, unb64(given.signature), signed)
    return statement


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise EvidenceInvalid(f"the {what} is no JSON") from error
    if not isinstance(value, dict):
        raise EvidenceInvalid(f"the {what} is no JSON object")
    return value


def _signature_verify(pem: str, signature: bytes, signed: bytes) -> None:
    try:
        key = load_pem_public_key(pem.encode())
        match key:
            case ec.EllipticCurvePublicKey():
                key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
            case rsa.RSAPublicKey():
                key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
            case ed25519.Ed25519PublicKey():
                key.verify(signature, signed)
            case _:
                raise EvidenceInvalid("the key is of an unknown kind")
    except InvalidSignature as error:
        raise EvidenceInvalid("the signature does not fit") from error
    except ValueError as error:
        raise error if isinstance(error, EvidenceInvalid) else EvidenceInvalid("the key cannot be read") from error
