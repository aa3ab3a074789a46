"""The student's API: the prompt a channel serves now, with its hash and who signed it. Bearer token, no cookies.

Every answer is re-hashed before it leaves: bytes that are not the signed ones are never served.
"""

import hmac
import logging
from datetime import datetime
from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.http import parse_etags
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, ValidationError
from ninja.security import HttpBearer
from pydantic import Field
from pydantic import ValidationError as PydanticError

from pld_app.canonical import sha256_hex
from rules.manifest import Manifest, manifest_read
from rules.models import ChannelName, PromptToken, Publication, Release, TokenScope
from rules.selectors.publishing import Serving, publications_valid, serving
from rules.selectors.rulesets import signature_state
from rules.services.reads import check_failed_note, read_note

logger = logging.getLogger(__name__)


class TokenAuth(HttpBearer):
    """A token of a service for this scope, found by its SHA-256."""

    scope = TokenScope.PROMPT

    def __call__(self, request: HttpRequest) -> PromptToken | None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        return self.authenticate(request, secret.strip()) if scheme.lower() == "bearer" else None

    def authenticate(self, request: HttpRequest, token: str) -> PromptToken | None:
        if not token or not token.isascii():
            return None
        digest = sha256_hex(token)
        living = PromptToken.objects.select_related("task").filter(scope=self.scope, revoked_at__isnull=True)
        found = living.filter(digest=digest).first()
        # The index finds the digest of the token, which tells nothing of the token; the last word is constant-time.
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None


class Signer(Schema):
    name: str
    role: str
    meaning: str
    conditions: str = Field(description="On what an approval with conditions rests; else empty.")
    signed_at: datetime


class Prompt(Schema):
    """The system prompt in force, with what it takes to check it."""

    task: str
    channel: str
    version: int = Field(description="Version of the release.")
    prompt: str = Field(description="The system prompt, byte for byte as signed.")
    prompt_sha256: str = Field(description="SHA-256 of the prompt in UTF-8, lower-case hexadecimal.")
    manifest_sha256: str = Field(description="SHA-256 of the signed manifest.")
    signers: list[Signer]
    published_at: datetime
    answer_schema: dict[str, Any] = Field(description="JSON Schema of the student's answer.")


class Problem(Schema):
    detail: str
    reason: str = Field(
        default="",
        description="For machines: stopped (an emergency stop holds the channel), nothing_published, check_failed.",
    )


api = NinjaAPI(
    title="PLD Review: prompt API",
    version="1",
    description="The signed system prompt of a task, for the service that runs the student model.",
    docs_url=None,
    openapi_url="openapi.json",
    urls_namespace="api",
)


def _problem(request: HttpRequest, status: HTTPStatus, detail: str, reason: str = "") -> HttpResponse:
    said = {"detail": detail, "reason": reason} if reason else {"detail": detail}
    response = api.create_response(request, said, status=status)
    response["Cache-Control"] = "no-store"
    return response


@api.exception_handler(AuthenticationError)
def unauthorized(request: HttpRequest, error: AuthenticationError) -> HttpResponse:
    response = _problem(request, HTTPStatus.UNAUTHORIZED, "Send a valid token: Authorization: Bearer <token>.")
    response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(ValidationError)
def unprocessable(request: HttpRequest, error: ValidationError) -> HttpResponse:
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "channel must be one of: staging, production.")


class _NotTheSignedBytes(Exception):
    """What is stored is not what was signed."""


def _signed_manifest(release: Release) -> Manifest:
    """The manifest of these signed bytes. Raises _NotTheSignedBytes when any hash on the way does not hold."""
    data = bytes(release.ruleset.manifest or b"")
    if not hmac.compare_digest(sha256_hex(data), release.manifest_sha256):
        raise _NotTheSignedBytes("manifest")
    try:
        manifest = manifest_read(data)
    except PydanticError as error:
        raise _NotTheSignedBytes("manifest") from error
    prompt_sha256 = sha256_hex(release.prompt)
    if prompt_sha256 != release.prompt_sha256 or prompt_sha256 != manifest.prompt_sha256:
        raise _NotTheSignedBytes("prompt")
    return manifest


def answer_schema(labels: list[str]) -> dict[str, Any]:
    """JSON Schema of an answer: one of the signed labels and nothing else."""
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": labels}},
        "required": ["label"],
        "additionalProperties": False,
    }


def _is_known(request: HttpRequest, etag: str) -> bool:
    """Whether If-None-Match names this version (weak comparison, RFC 9110 section 13.1.2)."""
    known = parse_etags(request.headers.get("If-None-Match", ""))
    return "*" in known or etag in {tag.removeprefix("W/") for tag in known}


def _body(publication: Publication, manifest: Manifest, slug: str) -> Prompt:
    """The answer. Raises _NotTheSignedBytes when this very manifest lacks the signatures its policy asks for."""
    release = publication.release
    signatures = list(release.ruleset.signatures.filter(manifest_sha256=release.manifest_sha256).order_by("pk"))
    if not signature_state(manifest.policy, signatures).is_complete:
        raise _NotTheSignedBytes("signatures")
    return Prompt(
        task=slug,
        channel=publication.channel,
        version=release.version,
        prompt=release.prompt,
        prompt_sha256=release.prompt_sha256,
        manifest_sha256=release.manifest_sha256,
        signers=[
            Signer(
                name=one.signer_name,
                role=one.signer_role,
                meaning=one.meaning,
                conditions=one.conditions,
                signed_at=one.at,
            )
            for one in signatures
        ],
        published_at=publication.at,
        answer_schema=answer_schema(manifest.labels),
    )


def _nothing(request: HttpRequest, token: PromptToken, channel: ChannelName, now: Serving) -> HttpResponse:
    """Why there is no prompt: a stop says so with 503, so that a service can tell it from never having had one."""
    if now.fallback == "stopped":
        read_note(token=token, channel=channel, release=None, reason="stopped")
        words = f"An emergency stop holds {channel.value} of {token.task.slug} and nothing valid is left to serve."
        return _problem(request, HTTPStatus.SERVICE_UNAVAILABLE, words, "stopped")
    read_note(token=token, channel=channel, release=None, reason="nothing_published")
    words = f"Nothing valid is published to {channel.value} of {token.task.slug}."
    return _problem(request, HTTPStatus.NOT_FOUND, words, "nothing_published")


@api.get(
    "/tasks/{slug:task}/prompt",
    response={200: Prompt, 304: None, 401: Problem, 403: Problem, 404: Problem, 422: Problem, 503: Problem},
    auth=TokenAuth(),
    summary="The prompt a channel serves now",
    operation_id="prompt_get",
    url_name="prompt",
)
def prompt(request: HttpRequest, task: str, channel: ChannelName = ChannelName.PRODUCTION) -> HttpResponse:
    """Send the ETag of your last answer as If-None-Match: 304 says that nothing changed. Check `prompt_sha256`."""
    token: PromptToken = request.auth  # type: ignore[attr-defined]  # set by TokenAuth
    if token.task.slug != task:
        return _problem(request, HTTPStatus.FORBIDDEN, "This token is for another task.")
    now = serving(token.task_id, channel)
    publication = now.publication
    if publication is None:
        return _nothing(request, token, channel, now)
    try:
        response = _answer(request, publication, task)
    except _NotTheSignedBytes as error:
        return _fallen_back(request, token, publication, str(error))
    read_note(token=token, channel=channel, release=publication.release)
    if now.fallback:
        response["X-Prompt-Fallback"] = now.fallback
    return response


def _answer(request: HttpRequest, publication: Publication, slug: str) -> HttpResponse:
    """The prompt of one publication, or 304. Raises _NotTheSignedBytes."""
    release = publication.release
    etag = f'"{release.prompt_sha256}-{release.version}"'
    manifest = _signed_manifest(release)
    if _is_known(request, etag):
        response = HttpResponse(status=HTTPStatus.NOT_MODIFIED)
    else:
        body = _body(publication, manifest, slug).model_dump(mode="json")
        response = api.create_response(request, body, status=HTTPStatus.OK)
    response["ETag"] = etag
    response["X-Prompt-SHA256"] = release.prompt_sha256
    response["Cache-Control"] = "private, no-cache"
    return response


FALLBACKS = 5  # releases tried before the student is told to keep what it has


def _fallen_back(request: HttpRequest, token: PromptToken, broken: Publication, what: str) -> HttpResponse:
    """The valid release before one whose bytes do not hold, and an alarm; 503 when there is none."""
    channel, slug = broken.channel, token.task.slug
    logger.critical("prompt not served: the %s of release %s of %s do not hold", what, broken.release, slug)
    check_failed_note(task=token.task, release=broken.release, channel=channel, what=what)
    before = publications_valid(token.task_id, channel).exclude(release=broken.release)
    for publication in before.select_related("release__ruleset")[:FALLBACKS]:
        try:
            response = _answer(request, publication, slug)
        except _NotTheSignedBytes:
            continue
        read_note(token=token, channel=channel, release=publication.release, reason="check_failed")
        response["X-Prompt-Fallback"] = "check_failed"
        return response
    read_note(token=token, channel=channel, release=None, reason="check_failed")
    words = "The stored prompt failed its check. Keep your last."
    return _problem(request, HTTPStatus.SERVICE_UNAVAILABLE, words, "check_failed")
