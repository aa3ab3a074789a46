"""A small OpenID Connect provider over real HTTP on loopback: metadata, keys, the code exchange. It does as told."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


@cache
def own_key() -> RSAKey:
    """The provider's key, made once a run."""
    return RSAKey.generate_key(2048, {"kid": "k1"})


CLIENT, SECRET = "pld", "a secret of the client"


@dataclass
class Provider:
    """`claims` go into every ID token; `spoil` replaces whole parts of an answer by name."""

    port: int = 0
    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "idp-1", "preferred_username": "sam"})
    spoil: dict[str, Any] = field(default_factory=dict)
    key: RSAKey = field(default_factory=own_key)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def authorize(self, url: str) -> dict[str, str]:
        """What the person does in the browser: sign in there. Returns the query of the way back."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        self.asked.append(query)
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        return {"code": code, "state": query["state"]}

    def metadata(self) -> dict[str, Any]:
        said = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
        }
        return said | dict(self.spoil.get("metadata", {}))

    def token(self, form: dict[str, str], basic: str) -> tuple[int, dict[str, Any]]:
        """The exchange as the specification has it: code once, PKCE, the client's secret, the same redirect."""
        query = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            query is None
            or challenge.decode().rstrip("=") != query["code_challenge"]
            or form.get("redirect_uri") != query["redirect_uri"]
            or base64.b64decode(basic.removeprefix("Basic ")).decode() != f"{CLIENT}:{SECRET}"
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 300,
            "nonce": query["nonce"],
            "auth_time": now,
        }
        claims |= self.claims | dict(self.spoil.get("claims", {}))
        claims = {name: value for name, value in claims.items() if value is not None}
        key = self.spoil.get("key", self.key)
        header = {"alg": "RS256", "kid": "k1"} | dict(self.spoil.get("header", {}))
        signed = jwt.encode(header, claims, key, algorithms=["RS256", "HS256", "none"])
        return 200, {"id_token": self.spoil.get("id_token", signed), "access_token": "t", "token_type": "Bearer"}


class _Handler(BaseHTTPRequestHandler):
    provider: Provider
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: Any) -> None:
        """Tests read what was asked from the provider."""

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        one = self.provider
        one.requests.append(self.path)
        if self.path in one.spoil:
            status, body = one.spoil[self.path]
            self._send(status, body)
        elif self.path == "/.well-known/openid-configuration":
            self._send(200, json.dumps(one.metadata()).encode())
        elif self.path == "/keys":
            self._send(200, json.dumps({"keys": [one.key.as_dict(private=False) | {"use": "sig"}]}).encode())
        else:
            self._send(404, b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.provider.requests.append(self.path)
        status, said = self.provider.token(form, self.headers.get("Authorization", ""))
        self._send(status, json.dumps(said).encode())


@contextmanager
def oidc_provider() -> Iterator[Provider]:
    """Serve from a thread until the block ends."""
    one = Provider()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"provider": one}))
    one.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
