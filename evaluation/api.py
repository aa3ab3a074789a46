"""Asking a release again, and what came of it, for a service: a bearer token of its own scope, no cookies."""

from datetime import datetime
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI, Schema
from ninja.errors import AuthenticationError, ValidationError
from pydantic import Field

from evaluation.models import Cause, Reevaluation
from evaluation.selectors.runs import figures_of
from evaluation.services.reevaluation import reevaluation_start
from pld_app.errors import Refusal
from rules.api import Problem, TokenAuth
from rules.models import ChannelName, GateVerdict, PromptToken, Release, Task, TokenScope
from rules.selectors.publishing import current_release


class ReevaluationAuth(TokenAuth):
    """A token that asks releases again; one that reads prompts opens nothing here, nor the reverse."""

    scope = TokenScope.REEVALUATE


class Asked(Schema):
    """`release` left out: the one in production."""

    release: int | None = Field(default=None, description="Version of the release; left out: the one in production.")


class GateResult(Schema):
    gate: str
    label: str
    threshold: str
    outcome: str = Field(description="passed, failed or not_shown.")
    value: str | None


class ReevaluationOut(Schema):
    id: int
    run: int = Field(description="Number of the evaluation run.")
    state: str = Field(description="queued, running, succeeded, failed or cancelled.")
    release: int
    cause: str
    student: str
    split: str
    n: int
    dataset_sha256: str
    started_at: datetime
    finished_at: datetime | None
    macro_f1: float | None = None
    macro_f1_interval: tuple[float, float] | None = None
    gates_passed: bool | None = Field(default=None, description="null: no verdict of the gates in force rests on it.")
    gates: list[GateResult] = []


api = NinjaAPI(
    title="PLD Review: re-evaluation API",
    version="1",
    description="Evaluates a release again, within the budget that an administrator confirmed.",
    docs_url=None,
    openapi_url="openapi.json",
    urls_namespace="api-evaluation",
)


def _problem(request: HttpRequest, status: int, detail: str) -> HttpResponse:
    response = api.create_response(request, {"detail": detail, "reason": ""}, status=status)
    response["Cache-Control"] = "no-store"
    return response


@api.exception_handler(AuthenticationError)
def unauthorized(request: HttpRequest, _error: AuthenticationError) -> HttpResponse:
    words = "Send a valid token for re-evaluation: Authorization: Bearer <token>."
    response = _problem(request, HTTPStatus.UNAUTHORIZED, words)
    response["WWW-Authenticate"] = "Bearer"
    return response


@api.exception_handler(ValidationError)
def unprocessable(request: HttpRequest, _error: ValidationError) -> HttpResponse:
    words = 'Send JSON like {"release": 3}, or {} for production.'
    return _problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, words)


@api.exception_handler(Refusal)
def refused(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    return _problem(request, refusal.status, str(refusal.user_message))


def _release(task: Task, version: int | None) -> Release | None:
    if version is None:
        return current_release(task, ChannelName.PRODUCTION)
    return Release.objects.select_related("task", "ruleset").filter(task=task, version=version).first()


def _said(one: Reevaluation) -> ReevaluationOut:
    figures = figures_of(one.run)
    verdict = GateVerdict.objects.filter(run_id=one.run_id).order_by("-pk").first()
    interval = figures.metrics.macro_f1_interval if figures else None
    return ReevaluationOut(
        id=one.pk,
        run=one.run.number,
        state=one.run.state,
        release=one.release.version,
        cause=one.cause,
        student=one.run.student_name,
        split=one.split,
        n=one.run.n,
        dataset_sha256=one.dataset.sha256,
        started_at=one.created_at,
        finished_at=one.run.finished_at,
        macro_f1=figures.metrics.macro_f1 if figures else None,
        macro_f1_interval=(interval.low, interval.high) if interval else None,
        gates_passed=verdict.passed if verdict else None,
        gates=[GateResult(**{name: row[name] for name in GateResult.model_fields}) for row in verdict.results]
        if verdict
        else [],
    )


def _answer(request: HttpRequest, one: Reevaluation, status: HTTPStatus) -> HttpResponse:
    response: HttpResponse = api.create_response(request, _said(one).model_dump(mode="json"), status=status)
    response["Cache-Control"] = "no-store"
    return response


_REFUSED = {401: Problem, 403: Problem, 404: Problem, 409: Problem, 422: Problem}


@api.post(
    "/tasks/{slug:task}/reevaluations",
    response={202: ReevaluationOut, **_REFUSED},
    auth=ReevaluationAuth(),
    summary="Ask a release again",
    operation_id="reevaluation_start",
    url_name="reevaluations",
)
def start(request: HttpRequest, task: str, asked: Asked) -> HttpResponse:
    """While the same is open already it is answered again, and nothing is started: a repeated request costs nothing."""
    token: PromptToken = request.auth  # type: ignore[attr-defined]  # set by TokenAuth
    if token.task.slug != task:
        return _problem(request, HTTPStatus.FORBIDDEN, "This token is for another task.")
    release = _release(token.task, asked.release)
    if release is None:
        return _problem(request, HTTPStatus.NOT_FOUND, "There is no such release, or production serves nothing.")
    started = reevaluation_start(release=release, cause=Cause.API, said_by=f"{token.name} ({token.hint})")
    return _answer(request, started, HTTPStatus.ACCEPTED)


@api.get(
    "/tasks/{slug:task}/reevaluations/{int:key}",
    response={200: ReevaluationOut, **_REFUSED},
    auth=ReevaluationAuth(),
    summary="What came of it",
    operation_id="reevaluation_get",
    url_name="reevaluation",
)
def state(request: HttpRequest, task: str, key: int) -> HttpResponse:
    """Ask until `state` is succeeded, failed or cancelled; figures and gates are there then."""
    token: PromptToken = request.auth  # type: ignore[attr-defined]  # set by TokenAuth
    if token.task.slug != task:
        return _problem(request, HTTPStatus.FORBIDDEN, "This token is for another task.")
    related = ("run__release", "release", "dataset")
    found = Reevaluation.objects.select_related(*related).filter(release__task=token.task, pk=key).first()
    if found is None:
        return _problem(request, HTTPStatus.NOT_FOUND, "There is no such re-evaluation.")
    return _answer(request, found, HTTPStatus.OK)
