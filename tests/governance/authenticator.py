"""A passkey in software: what an authenticator and a browser do, written from the specification."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pld_app.assertions import b64, unb64
from pld_app.models import Passkey, User
from pld_app.passkeys import Site

SITE = Site("testserver", "http://testserver")
PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """One credential on one device; `verified=False` is a device that does not ask for a PIN or a finger."""

    site: Site = SITE
    verified: bool = True
    count: int = 0
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential_id: bytes = b""

    def __post_init__(self) -> None:
        numbers = self.key.public_key().public_numbers()
        self.credential_id = hashlib.sha256(numbers.x.to_bytes(32)).digest()[:16]
        self.cose = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)})

    def _data(self, more: int = 0) -> bytes:
        flags = PRESENT | (VERIFIED if self.verified else 0) | more
        return hashlib.sha256(self.site.rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4)

    def _client(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.site.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def create(self, options: dict[str, Any]) -> str:
        """The answer to `navigator.credentials.create`."""
        attested = bytes(16) + len(self.credential_id).to_bytes(2) + self.credential_id + self.cose
        data = self._data(ATTESTED) + attested
        response = {
            "clientDataJSON": b64(self._client("webauthn.create", options["challenge"])),
            "attestationObject": b64(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})),
            "transports": ["internal"],
        }
        return self._answer(response)

    def get(self, options: dict[str, Any]) -> str:
        """The answer to `navigator.credentials.get`: the counter moves on."""
        self.count += 1
        client, data = self._client("webauthn.get", options["challenge"]), self._data()
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        response = {"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature)}
        return self._answer(response)

    def _answer(self, response: dict[str, Any]) -> str:
        name = b64(self.credential_id)
        assert unb64(name) == self.credential_id
        return json.dumps(
            {"id": name, "rawId": name, "type": "public-key", "clientExtensionResults": {}, "response": response}
        )

    def enrolled(self, user: User, name: str = "Laptop") -> "Authenticator":
        """Put the credential on the account, past the service."""
        Passkey.objects.create(user=user, name=name, credential_id=self.credential_id, public_key=self.cose)
        return self
