"""The pages of conflict resolution, the cards it leads to, and the whole way of a loop through a browser's forms."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from evaluation.models import LoopState, ResolutionLoop, StopReason
from pld_app.models import User
from rules.diff import risks_digest, risky_changes
from rules.models import Instruction, InstructionOrigin, InstructionStatus, Task, TextProposal
from rules.services.rulesets import ruleset_create
from tests.evaluation.loops import answer_all, make_group, make_loop, make_round
from tests.evaluation.resolution_scene import MENDED, TOO_WIDE, round_of, scene_in, turn
from tests.evaluation.scene import examples, make_run, student
from tests.factories import make_instruction, text_row
from tests.publishing import steps
from tests.scripted_student import rule_text

pytestmark = pytest.mark.django_db
type ClientOf = Callable[[User], Client]

LOOPS = "/tasks/nda/evaluation/loops/"


def page(client: Client, url: str, status: int = 200) -> str:
    answer = client.get(url)
    assert answer.status_code == status, answer.content.decode()[:500]
    return " ".join(answer.content.decode().split())


def post(client: Client, url: str, status: int = 302, **fields: Any) -> str:
    answer = client.post(url, fields)
    assert answer.status_code == status, answer.content.decode()[:500]
    return " ".join(answer.content.decode().split())


def test_a_loop_from_its_form_to_its_end(
    task: Task, ada: User, ana: User, ben: User, abe: User, client_of: ClientOf
) -> None:
    admin, writer, second, auditor = (client_of(one) for one in (ada, ana, ben, abe))
    with scene_in(task, ana, ben) as scene:
        assert "No loop yet" in page(admin, LOOPS)
        assert "There is no ruleset to begin from" in page(admin, f"{LOOPS}new/")
        post(writer, "/tasks/nda/rulesets/new/", start="approved")
        fields: dict[str, Any] = {
            "ruleset": "1",
            "student": scene.student.pk,
            "resolver": scene.resolver.pk,
            "max_rounds": "2",
        }
        shown = post(admin, f"{LOOPS}new/", 200, **fields)
        assert "60 validation examples, measured 3 times at most" in shown
        assert scene.asked_student.requests == []
        digest = shown.split('name="confirmed" value="')[1].split('"')[0]
        post(admin, f"{LOOPS}new/", 422, **fields, confirmed="0" * 64)
        post(admin, f"{LOOPS}new/", **fields, confirmed=digest)
        loop = ResolutionLoop.objects.get()
        assert "The first round begins" in page(admin, f"{LOOPS}1/")
        turn(loop)
        shown = page(auditor, f"{LOOPS}1/")
        assert "2 proposals of this round wait for reviewers" in shown
        assert "Breach answered as Compliant" in shown
        assert "it may be too wide" in shown
        assert "No instruction speaks to these: Unclear" in shown
        assert "Begin the next round" not in page(admin, f"{LOOPS}1/")
        # The card compares the texts, shows the examples beside them, and takes the proposal over.
        proposal = TextProposal.objects.get()
        card = f"/tasks/nda/review/{proposal.instruction.number}/"
        shown = page(writer, card)
        assert "Proposed by conflict resolution, loop 1, round 1" in shown
        assert "Measured examples" in shown
        assert "Reopen it to take this text over" in shown
        row = proposal.instruction
        post(writer, f"{card}reopen/", version=row.version, note="As proposed.")
        row.refresh_from_db()
        assert f">{html_of(MENDED)}</textarea>" in page(writer, f"{card}?take=p{proposal.pk}")
        post(writer, f"{card}edit/", version=row.version, text=MENDED, seen=warnings_of(row, MENDED))
        row.refresh_from_db()
        post(second, f"{card}approve/", version=row.version)
        added = Instruction.objects.get(origin=InstructionOrigin.RESOLUTION)
        # The next open card is in the hands of whoever saved the edit.
        assert "Proposed by conflict resolution" in page(writer, f"/tasks/nda/review/{added.number}/")
        post(writer, f"/tasks/nda/review/{added.number}/approve/", version=added.version)
        assert "Everything this round proposed is decided" in page(admin, f"{LOOPS}1/")
        post(admin, f"{LOOPS}1/next/")
        turn(loop)
        shown = page(auditor, f"{LOOPS}1/")
    assert (loop.state, loop.stop_reason) == (LoopState.STOPPED, StopReason.NO_FAILURES)
    assert "Nothing failed: there is nothing left to mend" in shown
    assert "Round 2 has the highest macro-F1: 1.00 (stub-1, validation, n = 60)." in shown
    assert "No answer was wrong" in shown
    assert "What failed in round 1" in page(auditor, f"{LOOPS}1/?round=1")


def html_of(text: str) -> str:
    return text.replace('"', "&quot;")


def warnings_of(row: Instruction, text: str) -> str:
    """The warnings of this edit as its sender has read them."""
    return risks_digest(risky_changes(text_row(row).text, text, row.task.labels))


def test_a_reviewer_writes_an_instruction_from_what_none_covers(
    task: Task, ada: User, ana: User, ben: User, client_of: ClientOf
) -> None:
    with scene_in(task, ana, ben) as scene:
        loop = turn(scene.loop(ada, resolver=None))
    group = round_of(loop).groups.get(instruction=None)
    url = f"{LOOPS}1/groups/{group.pk}/"
    assert "Write an instruction for them" in page(client_of(ana), url)
    assert "Write an instruction for them" not in page(client_of(ada), url)
    assert "invisible characters" in post(client_of(ana), url, 422, text="If\u202e so.", label="Unclear")
    text = rule_text("industry practice", "Unclear")
    post(client_of(ana), url, text=text, label="Unclear", note="None says it.")
    row = Instruction.objects.get(origin=InstructionOrigin.PERSON)
    assert (row.status, row.waiting, row.label) == (InstructionStatus.IN_REVIEW, "second", "Unclear")
    assert (text_row(row).text, text_row(row).author) == (text, ana)
    assert row.evidence.filter(is_cited=True).count() == row.support > 0
    assert "this very text is there already" in post(client_of(ben), url, 422, text=text, label="Unclear")
    shown = page(client_of(ben), f"/tasks/nda/review/{row.number}/")
    assert "Written by a reviewer" in shown
    assert "Written; a second reviewer approves" in shown
    assert f"#{row.number}</a>" in page(client_of(ben), url)


def test_a_dismissed_proposal_leaves_the_card(task: Task, ada: User, ana: User, ben: User, client_of: ClientOf) -> None:
    with scene_in(task, ana, ben) as scene:
        turn(scene.loop(ada))
    proposal = TextProposal.objects.get()
    card = f"/tasks/nda/review/{proposal.instruction.number}/"
    post(client_of(ana), f"{card}proposals/{proposal.pk}/dismiss/")
    assert "Proposed by conflict resolution" not in page(client_of(ana), card)
    assert "Proposed text dismissed" in page(client_of(ana), card)
    post(client_of(ben), f"{card}proposals/{proposal.pk}/dismiss/", 409)


def test_a_paused_loop_says_why_and_takes_a_budget(
    task: Task, ada: User, ana: User, ben: User, client_of: ClientOf
) -> None:
    with scene_in(task, ana, ben) as scene:
        loop = turn(scene.loop(ada, max_calls=5))
        assert "The budget does not allow what comes next" in page(client_of(ada), f"{LOOPS}1/")
        assert "Set the most calls" in post(client_of(ada), f"{LOOPS}1/budget/", 422)
        post(client_of(ada), f"{LOOPS}1/budget/", max_calls=500)
        assert turn(loop).state == LoopState.WAITING
    post(client_of(ada), f"{LOOPS}1/cancel/")
    assert "Cancelled. What was measured stays" in page(client_of(ada), f"{LOOPS}1/")


def test_baselines_stand_beside_the_rounds(task: Task, ada: User, ana: User, ben: User, client_of: ClientOf) -> None:
    with scene_in(task, ana, ben) as scene:
        run = make_run(task, ada)
        loop = turn(scene.loop(ada))
        run.refresh_from_db()
        assert run.state == "succeeded"
    shown = page(client_of(ana), f"{LOOPS}{loop.number}/")
    assert 'class="fig-line-baseline"' in shown
    assert "Zero-shot" in shown


def test_a_loops_page_asks_no_more_queries_for_more_groups(
    task: Task, ana: User, ada: User, client_of: ClientOf
) -> None:
    ruleset = steps.draft(task, ana)
    examples(task, 2)
    student("http://127.0.0.1:9/v1", task)
    run = make_run(task)
    answer_all(run)
    rows = [make_instruction(task, f"If clause {n} burns, then label Breach.") for n in range(12)]
    round_ = make_round(make_loop(run, ruleset), run, rows[0])
    make_group(round_, rows[0])
    client = client_of(ana)
    page(client, f"{LOOPS}1/")
    before = count_of(client)
    for number, row in enumerate(rows[1:], 2):
        make_group(round_, row, number=number)
    assert count_of(client) == before


def count_of(client: Client) -> int:
    with CaptureQueriesContext(connection) as seen:
        page(client, f"{LOOPS}1/")
    return len(seen)


def test_the_command_works_until_people_are_needed_and_prints_the_state(
    task: Task, ada: User, ana: User, ben: User, capsys: pytest.CaptureFixture[str]
) -> None:
    with scene_in(task, ana, ben) as scene:
        with pytest.raises(CommandError, match="Name a ruleset"):
            call_command("resolve_conflicts", "nda")
        ruleset_create(task=task, composer=ana)
        call_command("resolve_conflicts", "nda", "--ruleset", "1", "--resolver", "resolver", "--inline")
        said = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (said["state"], said["waiting"], said["rounds"][0]["n"]) == ("waiting", 2, 60)
        with pytest.raises(CommandError, match="2 proposals"):
            call_command("resolve_conflicts", "nda", "--next")
        assert scene.asked_resolver.requests
    assert TOO_WIDE in set(Instruction.objects.values_list("current_revision__text", flat=True))
