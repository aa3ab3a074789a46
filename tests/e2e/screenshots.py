"""The pictures of the documentation, taken from the sample task: mined, reviewed, signed and evaluated for real.

Not collected with the tests; run it when the pages have changed:
`python -m pytest tests/e2e/screenshots.py` (PLD_SCREENSHOTS=folder, else docs/images). The student is the local one.
With Pillow installed the pictures are reduced to 256 colours, which keeps each under 150 kB.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from playwright.sync_api import Page

from evaluation.management.demo_review import demo_review
from evaluation.models import PromptKind
from evaluation.services.runs import evaluation_run_create
from pld_app.jobs import job_execute
from pld_app.models import Domain, Job, ModelEndpoint, Role, User
from rules.models import ChannelName, Instruction, Meaning, ReasonCode, Release, Ruleset, Split, Task
from rules.schemas import MiningParameters
from rules.services.imports import import_create
from rules.services.mining import mining_run_create
from rules.services.publishing import release_create
from rules.services.rulesets import ruleset_create, ruleset_freeze
from tests.e2e.conftest import Person
from tests.e2e.scenes import reviewers
from tests.factories import make_endpoint, make_task, make_user
from tests.publishing import steps
from tests.review.conftest import approve, defer, edit, reject, send_back

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SAMPLE = settings.BASE_DIR / "rules" / "sample"
OUT = Path(os.environ.get("PLD_SCREENSHOTS", settings.BASE_DIR / "docs" / "images"))
EXAMPLES = 24
SIZES = {1440: {"width": 1440, "height": 900}, 360: {"width": 360, "height": 780}}


def test_take_pictures(person: Callable[..., Person]) -> None:
    lena, finn = reviewers()
    ada, sofia, samir = (
        make_user("ada", Role.ADMIN),
        make_user("sofia", Role.SIGNATORY),
        make_user("samir", Role.SIGNATORY),
    )
    make_user("abel", Role.AUDITOR)
    with local_student() as student:
        task = mined_task(ada, student)
        shown = decide(task, lena, finn)
        release = publish(task, finn, sofia, samir)
        run = evaluate(task, ada, release)
    base = f"/tasks/{task.slug}"
    take(person("lena"), "queue", f"{base}/review/?domain=all")
    take(person("lena"), "card", f"{base}/review/{shown.number}/?domain=all")
    take(person("finn"), "diff", f"{base}/review/{shown_edit(task).number}/?tab=second&domain=all")
    take(person("sofia"), "ruleset", f"{base}/rulesets/{release.ruleset.number}/")
    take(person("ada"), "evaluation", f"{base}/evaluation/{run}/")
    take(person("abel"), "audit", "/audit/")
    make_user("theo", Role.REVIEWER, Domain.LEGAL)
    begun = mined_task(ada, None, slug="begun")
    demo_review(begun, ada)
    take(person("abel"), "dashboard", f"/tasks/{begun.slug}/review/quality/")


@contextmanager
def local_student() -> Iterator[ModelEndpoint]:
    """The demo's own student on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "evaluation.student_server", "--port", str(port)]
    process = subprocess.Popen(command, cwd=settings.BASE_DIR, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_healthy(f"http://127.0.0.1:{port}/health")
        url = f"http://127.0.0.1:{port}/v1"
        yield make_endpoint(url, slug="local-student", model="SmolLM2-135M-Instruct", concurrency=2, timeout_s=120)
    finally:
        process.terminate()
        process.wait(timeout=20)


def wait_healthy(url: str) -> None:
    for _turn in range(300):
        try:
            with urlopen(url, timeout=2) as answer:  # noqa: S310  # our own loopback address
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the local student did not become ready within a minute")


def work_waiting_jobs() -> None:
    """A worker's turn, in this process: every job that waits."""
    for job in Job.objects.filter(state="queued").order_by("pk"):
        job_execute(job_id=job.pk)


def mined_task(ada: User, student: ModelEndpoint | None, **fields: str) -> Task:
    task = make_task(**(json.loads((SAMPLE / "task.json").read_text()) | fields), student=student)
    traces = ContentFile((SAMPLE / "traces.jsonl").read_bytes(), name="traces.jsonl")
    import_create(task=task, upload=traces, file_name="traces.jsonl", user=ada)
    work_waiting_jobs()
    mining_run_create(task=task, user=ada, parameters=MiningParameters())
    work_waiting_jobs()
    return task


def decide(task: Task, lena: User, finn: User) -> Instruction:
    """Some of every decision; the first with evidence on both sides is left open for its picture, and returned."""
    rules = list(Instruction.objects.filter(task=task).select_related("current_revision").order_by("topic", "number"))
    shown = next(rule for rule in rules if rule.support >= 3 and rule.contradictions >= 3)
    others = [rule for rule in rules if rule != shown]
    for place, rule in enumerate(others[: len(others) * 2 // 3]):
        if place % 8 == 3:
            reject(rule, lena, reason=ReasonCode.DUPLICATE)
        elif place % 8 == 5:
            edit(rule, lena, text=reworded(rule), note="In the words of our handbook.")
        elif place % 8 == 6:
            defer(rule, lena)
        else:
            approve(rule, lena)
    send_back(others[-1], finn, reason=ReasonCode.UNCLEAR)
    return shown


def reworded(rule: Instruction) -> str:
    assert rule.current_revision is not None
    head, comma, tail = rule.current_revision.text.rpartition(", then ")
    return f"{head}, and no later sentence takes it back{comma}{tail}"


def shown_edit(task: Task) -> Instruction:
    """The last edit that waits for a second reviewer."""
    return Instruction.objects.filter(task=task, waiting="second").order_by("-number")[0]


def publish(task: Task, finn: User, sofia: User, samir: User) -> Release:
    ruleset: Ruleset = ruleset_create(task=task, composer=finn)
    ruleset = ruleset_freeze(ruleset_id=ruleset.pk, editor=finn, version=ruleset.version)
    steps.sign(ruleset, sofia, Meaning.REVIEWED)
    steps.sign(ruleset, samir)
    release = release_create(ruleset_id=ruleset.pk, signatory=sofia)
    for channel in (ChannelName.STAGING, ChannelName.PRODUCTION):
        steps.publish(release, sofia, channel)
    return release


def evaluate(task: Task, ada: User, release: Release) -> int:
    """The baseline and the release on the same examples; the number of the release's run."""
    number = 0
    for kind, of in ((PromptKind.ZERO_SHOT, None), (PromptKind.RELEASE, release)):
        run = evaluation_run_create(
            task=task, user=ada, kind=kind, split=Split.VALIDATION, release=of, sample_size=EXAMPLES
        )
        work_waiting_jobs()
        number = run.number
    return number


def take(someone: Person, name: str, path: str) -> None:
    page = someone.open(path)
    for width, size in SIZES.items():
        page.set_viewport_size(size)  # type: ignore[arg-type]  # Playwright's own typed dict
        page.goto(someone.base + path)
        picture(page, OUT / f"{name}-{width}.png")


def picture(page: Page, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)
    try:
        pillow = import_module("PIL.Image")
    except ImportError:
        return
    with pillow.open(path) as image:
        image.convert("RGB").quantize(256, dither=0).save(path, optimize=True)
