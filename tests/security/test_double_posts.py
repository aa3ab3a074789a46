"""A button pressed twice, a form sent again by a browser: the second one changes nothing and pays for nothing."""

from collections.abc import Callable

import pytest
from django.test import Client

from evaluation.models import EvaluationRun
from pld_app.models import AuditEvent, User
from rules.models import Decision, MiningRun, PromptToken, Publication, Release, Signature, Task
from tests.factories import PROOF, make_endpoint, make_instruction, make_trace
from tests.publishing import steps

type ClientOf = Callable[[User], Client]


@pytest.fixture
def twice(client_of: ClientOf) -> Callable[[User, str, dict[str, object]], int]:
    """Send one form twice; answers with the status of the second."""

    def send(person: User, path: str, fields: dict[str, object]) -> int:
        browser = client_of(person)
        assert browser.post(path, fields).status_code in {200, 302}
        events = AuditEvent.objects.count()
        status = browser.post(path, fields).status_code
        assert AuditEvent.objects.count() == events
        return status

    return send


type Twice = Callable[[User, str, dict[str, object]], int]


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("approve", {}),
        ("reject", {"reason": "unclear"}),
        ("edit", {"text": "If file copies may be kept, then label Compliant."}),
        ("defer", {}),
        ("send-back", {"reason": "unclear"}),
    ],
)
def test_a_decision(task: Task, ana: User, twice: Twice, action: str, fields: dict[str, object]) -> None:
    make_instruction(task)
    assert twice(ana, f"/tasks/nda/review/1/{action}/", {"version": 1, **fields}) == 409
    assert Decision.objects.count() == 1


def test_freezing_signing_releasing_and_publishing(task: Task, ana: User, sam: User, sue: User, twice: Twice) -> None:
    ruleset = steps.draft(task, ana)
    here = f"/tasks/nda/rulesets/{ruleset.number}"
    assert twice(ana, f"{here}/freeze/", {"version": ruleset.version}) == 409
    ruleset.refresh_from_db()
    signing: dict[str, object] = {
        "meaning": "approved",
        **PROOF,
        "manifest_sha256": ruleset.manifest_sha256,
    }
    assert twice(sam, f"{here}/sign/", signing) == 409
    assert twice(sue, f"{here}/sign/", signing) == 409
    assert Signature.objects.count() == 2
    assert twice(sam, f"{here}/release/", {}) == 409
    release = Release.objects.get()
    publishing: dict[str, object] = {
        "newest": 0,
        "channel": "staging",
        "release": release.pk,
        **PROOF,
    }
    # The page that was shown is not the page there is.
    assert twice(sam, "/tasks/nda/releases/publish/", publishing) == 409
    assert Publication.objects.count() == 1


def test_a_token(task: Task, ada: User, twice: Twice) -> None:
    assert twice(ada, "/tasks/nda/tokens/new/", {"name": "student"}) == 422
    assert PromptToken.objects.count() == 1


def test_a_mining_run(task: Task, ada: User, twice: Twice) -> None:
    make_trace(task)
    fields: dict[str, object] = {
        "method": "louvain",
        "neighbours": 15,
        "eps": 0.4,
        "min_samples": 6,
        "max_conditions": 3,
        "min_group": 3,
    }
    assert twice(ada, "/tasks/nda/mining/new/", fields) == 409
    assert MiningRun.objects.count() == 1


def test_an_evaluation(task: Task, ada: User, twice: Twice) -> None:
    student = make_endpoint("http://127.0.0.1:9/v1", slug="student")
    make_trace(task, split="validation")
    fields: dict[str, object] = {"prompt": "zero_shot", "student": student.pk, "split": "validation", "seed": 0}
    assert twice(ada, "/tasks/nda/evaluation/new/", fields) == 409
    assert EvaluationRun.objects.count() == 1
    for state in ("running", "succeeded"):
        EvaluationRun.objects.update(state=state)
    assert twice(ada, "/tasks/nda/evaluation/1/rerun/", {}) == 409
    assert EvaluationRun.objects.count() == 2
