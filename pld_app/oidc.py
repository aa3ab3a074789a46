"""Single sign-on with an OpenID Connect provider (code flow with PKCE): the protocol, without pages or rows.

Everything the provider says is checked: its metadata name it, its keys sign the ID token; issuer, audience, expiry
and nonce, and at a step-up the time of authentication, are what was asked for (OpenID Connect Core 1.0, 3.1.3.7).
"""

import ipaddress
import json
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
import structlog
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from django.conf import settings
from django.utils.translation import gettext_lazy as _
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from pld_app.errors import InvalidInput

log = structlog.get_logger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
TIMEOUT_S = 5.0
LARGEST_ANSWER = 256 * 1024
METADATA_KEPT_S = 600.0
LEEWAY_S = 60


class SsoRefused(InvalidInput):
    """The provider did not answer, or its answer does not hold; the log says why, the person only what to do."""

    user_message = _("Single sign-on did not work this time. Try again, or use your password.")

    def __init__(self, why: str) -> None:
        super().__init__()
        self.why = why
        log.warning("sso.refused", why=why)


@dataclass(frozen=True)
class Provider:
    """What the provider's metadata say, after they were checked."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str


@dataclass(frozen=True, kw_only=True)
class Question:
    """What one round trip to the provider is bound to."""

    state: str
    nonce: str
    verifier: str

    @classmethod
    def new(cls, nonce: str = "") -> "Question":
        return cls(
            state=secrets.token_urlsafe(32),
            nonce=nonce or secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
        )


def is_configured() -> bool:
    return bool(settings.OIDC_ISSUER and settings.OIDC_CLIENT_ID)


_cache: dict[str, tuple[float, Provider]] = {}
_cache_lock = threading.Lock()


def provider() -> Provider:
    """The provider's endpoints from its metadata, kept for ten minutes; raises SsoRefused."""
    issuer: str = settings.OIDC_ISSUER
    with _cache_lock:
        kept = _cache.get(issuer)
    if kept and time.monotonic() - kept[0] < METADATA_KEPT_S:
        return kept[1]
    said = _request("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    if said.get("issuer") != issuer:
        raise SsoRefused("the metadata name another issuer")
    values = {name: said.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
    for name, value in values.items():
        if not isinstance(value, str):
            raise SsoRefused(f"the metadata lack {name}")
        _require_allowed(value)
    found = Provider(issuer=issuer, **values)  # type: ignore[arg-type]  # each was just seen to be text
    with _cache_lock:
        _cache[issuer] = (time.monotonic(), found)
    return found


def authorization_url(question: Question, *, redirect_uri: str, step_up: bool) -> str:
    """Where the browser goes; a step-up asks the provider to authenticate the person anew."""
    asked = {
        "response_type": "code",
        "client_id": settings.OIDC_CLIENT_ID,
        "redirect_uri": redirect_uri,
        "scope": "openid email profile",
        "state": question.state,
        "nonce": question.nonce,
        "code_challenge": create_s256_code_challenge(question.verifier),
        "code_challenge_method": "S256",
    }
    if step_up:
        asked |= {"prompt": "login", "max_age": "0"}
    endpoint = provider().authorization_endpoint
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}"


def claims_fetch(question: Question, *, code: str, redirect_uri: str) -> dict[str, Any]:
    """Exchange the code and return the checked claims of the ID token; raises SsoRefused."""
    known = provider()
    answer = _request(
        "POST",
        known.token_endpoint,
        data={
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": question.verifier,
            "client_id": settings.OIDC_CLIENT_ID,
        },
        auth=(settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET) if settings.OIDC_CLIENT_SECRET else None,
    )
    token = answer.get("id_token")
    if not isinstance(token, str):
        raise SsoRefused("the answer holds no ID token")
    return claims_check(token, _request("GET", known.jwks_uri), nonce=question.nonce, answer=answer)


def claims_check(token: str, keys: dict[str, Any], *, nonce: str, answer: dict[str, Any]) -> dict[str, Any]:
    """The claims of an ID token that this provider signed for this client and this question; raises SsoRefused."""
    options = {
        "iss": {"essential": True, "value": settings.OIDC_ISSUER},
        "aud": {"essential": True, "value": settings.OIDC_CLIENT_ID},
        "sub": {"essential": True},
    }
    params = {"nonce": nonce, "client_id": settings.OIDC_CLIENT_ID, "access_token": answer.get("access_token")}
    try:
        # No symmetric algorithm and no "none": the client secret must not be able to stand for the provider.
        signed = jwt.decode(token, KeySet.import_key_set(keys), algorithms=ALGORITHMS)  # type: ignore[arg-type]  # JSON
        claims = CodeIDToken(signed.claims, signed.header, options, params)
        claims.validate(leeway=LEEWAY_S)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise SsoRefused(f"the ID token does not hold: {type(error).__name__} {error}"[:200]) from error
    except Exception as error:  # authlib's claim errors share no base with joserfc's
        raise SsoRefused(f"the ID token does not hold: {type(error).__name__} {error}"[:200]) from error
    return dict(claims)


def _require_allowed(url: str) -> None:
    """https, or plain http on this very machine (a provider beside a trial installation, and the tests)."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    try:
        loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        loopback = parts.hostname == "localhost"
    if parts.scheme != "http" or not loopback:
        raise SsoRefused("an address of the provider is not https")


def _request(method: str, url: str, **options: Any) -> dict[str, Any]:
    """A JSON object from the provider: no redirects, no proxies of the environment, in five seconds and 256 KiB."""
    _require_allowed(url)
    ends = time.monotonic() + TIMEOUT_S
    try:
        with (
            httpx2.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
            client.stream(method, url, headers={"Accept": "application/json"}, **options) as response,
        ):
            if response.status_code != 200:
                raise SsoRefused(f"{urlsplit(url).path} answered {response.status_code}")
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > LARGEST_ANSWER or time.monotonic() > ends:
                    raise SsoRefused(f"{urlsplit(url).path} answered too much or too slowly")
        value = json.loads(body)
    except (httpx2.HTTPError, ValueError) as error:
        raise SsoRefused(f"{urlsplit(url).path}: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise SsoRefused(f"{urlsplit(url).path} answered no object")
    return value
