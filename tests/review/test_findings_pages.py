"""Conflicts, changes of a later run and suspect labels, on the card and on pages of their own."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from pld_app.errors import NotAllowed
from pld_app.models import User
from rules.exceptions import InvalidTransition
from rules.models import (
    Cluster,
    Conflict,
    ConflictExample,
    ConflictJudgement,
    ConflictKind,
    Instruction,
    InstructionOrigin,
    JudgementContext,
    MatchKind,
    MicroRule,
    MiningRun,
    RunMatch,
    SimilarRule,
    Suspect,
    Task,
)
from rules.services.attention import evidence_judge, insight_open
from rules.services.changes import change_dismiss
from tests.factories import (
    audit_actions,
    make_call,
    make_change,
    make_endpoint,
    make_evidence,
    make_instruction,
    make_policy,
    make_trace,
)
from tests.review.conftest import approve, edit, reject, reopen, undo

type ClientOf = Callable[[User], Client]

SPOKEN = "If copies are spoken of, then label {}."


def make_run(task: Task) -> MiningRun:
    return MiningRun.objects.create(task=task, number=1 + task.mining_runs.count(), state="succeeded")


def make_conflict(run: MiningRun, kind: ConflictKind = ConflictKind.CONFLICT, strength: float = 0.5) -> Conflict:
    """Two instructions with one trace each, their micro-rules drawn by a teacher, not imported."""
    task, ends = run.task, []
    for label in ("Compliant", "Breach"):
        instruction = make_instruction(task, f"If copies are kept, then label {label}.", label=label, support=7)
        trace = make_trace(task, label=label, instruction="")
        MicroRule.objects.create(run=run, trace=trace, origin="teacher", text=SPOKEN.format(label))
        ends.append((instruction, trace))
    (first, first_trace), (second, second_trace) = ends
    conflict = Conflict.objects.create(
        run=run, first=first, second=second, kind=kind, strength=strength, same_pairs=4, opposed_pairs=1
    )
    ConflictExample.objects.create(
        conflict=conflict, rank=1, first_trace=first_trace, second_trace=second_trace, similarity=0.6
    )
    return conflict


def look(instruction: Instruction, user: User) -> None:
    """As somebody who opened the figures of a card."""
    insight_open(instruction=instruction, user=user)


def page_of(client: Client, name: str, *args: object, query: str = "") -> str:
    response: Any = client.get(reverse(name, args=["nda", *args]) + (f"?{query}" if query else ""))
    assert response.status_code == 200, response.status_code
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def queries_of(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as queries:
        assert client.get(url).status_code == 200
    return len(queries)


# Conflicts.


def test_both_cards_show_the_other_text_the_counts_and_both_traces(task: Task, ana: User, client_of: ClientOf) -> None:
    conflict = make_conflict(make_run(task))
    for one in (conflict.first, conflict.second):
        assert "pairs of traces state" not in page_of(client_of(ana), "instruction-detail", one.number)
    for one in (conflict.first, conflict.second):
        look(one, ana)
    for own, other in ((conflict.first, conflict.second), (conflict.second, conflict.first)):
        page = page_of(client_of(ana), "instruction-detail", own.number)
        assert f"Instruction {other.number}, same condition, different label" in page
        assert f"then label {other.label}." in page
        assert "4 pairs of traces state the same condition, 1 the opposite one" in page
        mine, theirs = SPOKEN.format(own.label), SPOKEN.format(other.label)
        assert page.index(mine) < page.index(theirs)
    assert "Conflicts with other" not in page_of(client_of(ana), "instruction-detail", make_instruction(task).number)


def test_only_the_newest_finished_run_speaks_of_conflicts(task: Task, ana: User, client_of: ClientOf) -> None:
    conflict = make_conflict(make_run(task))
    MiningRun.objects.create(task=task, number=2, state="failed")
    assert "Conflicts with other" in page_of(client_of(ana), "instruction-detail", conflict.first.number)
    MiningRun.objects.create(task=task, number=3, state="succeeded")
    assert "Conflicts with other" not in page_of(client_of(ana), "instruction-detail", conflict.first.number)


def test_a_conflict_whose_text_was_edited_since_is_not_called_both_approved(
    task: Task, ana: User, ben: User, client_of: ClientOf
) -> None:
    run = make_run(task)
    conflict = make_conflict(run)
    MiningRun.objects.filter(pk=run.pk).update(finished_at=timezone.now())
    edit(conflict.first, ana, text="If copies are kept for a lawsuit, then label Compliant.")
    approve(conflict.first, ben)
    approve(conflict.second, ana)
    page = page_of(client_of(ana), "conflict-list")
    assert "Both approved" not in page
    assert "Edited since it was found" in page
    assert f"The text of instruction {conflict.first.number} is of" in page
    assert f"The text of instruction {conflict.second.number} is of" not in page


def test_the_list_is_strongest_first_and_says_what_is_resolved(
    task: Task, ana: User, ben: User, client_of: ClientOf
) -> None:
    run = make_run(task)
    weak, strong = make_conflict(run, strength=0.2), make_conflict(run, strength=0.9)
    make_conflict(run, ConflictKind.BOUNDARY, strength=1.0)
    page = page_of(client_of(ana), "conflict-list")
    titles = re.findall(r"Instructions (\d+) and (\d+)", page)
    assert titles == [(str(one.first.number), str(one.second.number)) for one in (strong, weak)]
    assert "Resolved" not in page
    reject(strong.first, ana, reason="policy")
    assert "Resolved" in page_of(client_of(ana), "conflict-list")
    approve(weak.first, ana)
    assert "Both approved" not in page_of(client_of(ana), "conflict-list")
    approve(weak.second, ben)
    assert "Both approved" in page_of(client_of(ana), "conflict-list")
    assert (
        len(re.findall(r"Instructions \d+ and", page_of(client_of(ana), "conflict-list", query="kind=boundary"))) == 1
    )


def test_without_a_run_or_a_conflict_the_list_says_so(task: Task, ana: User, client_of: ClientOf) -> None:
    assert "Conflicts are found when a mining run has finished" in page_of(client_of(ana), "conflict-list")
    make_run(task)
    assert "None of this kind" in page_of(client_of(ana), "conflict-list", query="kind=nonsense&page=99")


def test_the_list_costs_the_same_queries_for_1_and_25_rows(task: Task, ana: User, client_of: ClientOf) -> None:
    run, client, url = make_run(task), client_of(ana), reverse("conflict-list", args=["nda"])
    make_conflict(run)
    first = queries_of(client, url)
    for _ in range(24):
        make_conflict(run)
    assert queries_of(client, url) == first
    make_conflict(run)
    assert "Page 1 of 2" in page_of(client, "conflict-list") or "page=2" in client.get(url).content.decode()


# What a later run changed.


def test_a_proposed_text_is_shown_as_a_change_and_goes_into_the_edit_box(
    instruction: Instruction, ana: User, ben: User, client_of: ClientOf
) -> None:
    proposed = "If copies may be kept for ninety days, then label Compliant."
    match = make_change(instruction, proposed)
    page = page_of(client_of(ana), "instruction-detail", instruction.number)
    assert "Mining run 1: reworded" in page
    assert "A number, date or period changed" in page
    answer: Any = client_of(ana).get(reverse("instruction-detail", args=["nda", instruction.number]))
    box = re.search(r"<textarea[^>]*>(.*?)</textarea>", answer.content.decode(), re.DOTALL)
    assert box
    assert "ninety" not in box[1]
    taken: Any = client_of(ana).get(
        reverse("instruction-detail", args=["nda", instruction.number]) + f"?take={match.pk}"
    )
    box = re.search(r"<textarea[^>]*>(.*?)</textarea>", taken.content.decode(), re.DOTALL)
    assert box
    assert box[1] == proposed
    edit(instruction, ana, text=proposed)
    assert "reworded" not in page_of(client_of(ben), "instruction-detail", instruction.number)


def test_an_approved_text_stays_until_somebody_reopens_it(
    instruction: Instruction, ana: User, client_of: ClientOf
) -> None:
    approve(instruction, ana)
    make_change(instruction)
    page = page_of(client_of(ana), "instruction-detail", instruction.number)
    assert "Reopen it to take this text over." in page
    assert "Take it into the edit box" not in page
    reopen(instruction, ana, note="A later run words it better.")
    assert "Take it into the edit box" in page_of(client_of(ana), "instruction-detail", instruction.number)


def test_a_dismissed_proposal_is_gone_from_the_card_and_on_record(
    instruction: Instruction, ana: User, abe: User, client_of: ClientOf
) -> None:
    match = make_change(instruction)
    url = reverse("instruction-change-dismiss", args=["nda", instruction.number, match.pk])
    response: Any = client_of(ana).post(url, follow=True)
    assert "the same proposal does not come again" in response.content.decode()
    match.refresh_from_db()
    assert match.dismissed_by == ana
    assert audit_actions(instruction) == ["proposal.dismissed"]
    page = page_of(client_of(abe), "instruction-detail", instruction.number)
    assert "Mining run 1: reworded" not in page
    assert "Proposed text dismissed" in page
    with pytest.raises(InvalidTransition, match="Nothing is proposed here any more"):
        change_dismiss(match_id=match.pk, reviewer=ana)
    assert "proposal dismissed by Ana" in page_of(client_of(abe), "mining-changes", match.run.pk)


def test_only_a_reviewer_dismisses(instruction: Instruction, ada: User) -> None:
    with pytest.raises(NotAllowed):
        change_dismiss(match_id=make_change(instruction).pk, reviewer=ada)
    assert audit_actions(instruction) == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("lost", "No group of that run holds its traces"),
        ("evidence", "6 traces stood behind it, 9 do now, 5 in both."),
    ],
)
def test_the_card_says_what_became_of_the_evidence(
    instruction: Instruction, ana: User, client_of: ClientOf, kind: str, words: str
) -> None:
    run = make_run(instruction.task)
    match = RunMatch.objects.create(
        run=run, instruction=instruction, kind=kind, traces_before=6, traces_after=9, shared=5
    )
    look(instruction, ana)
    assert words in page_of(client_of(ana), "instruction-detail", instruction.number)
    RunMatch.objects.filter(pk=match.pk).update(kind="unchanged")
    assert "Mining run 1:" not in page_of(client_of(ana), "instruction-detail", instruction.number)


def test_a_fresh_candidate_says_what_it_replaces_and_how(task: Task, ana: User, client_of: ClientOf) -> None:
    old, fresh = (
        make_instruction(task, "If copies are kept, then x."),
        make_instruction(task, "If copies stay, then x."),
    )
    RunMatch.objects.create(run=make_run(task), instruction=fresh, kind="reworded", replaces=old)
    page = page_of(client_of(ana), "instruction-detail", fresh.number)
    assert "It takes the place of instruction 1, which nobody had decided on." in page
    assert "removed: are kept" in page


def test_the_changes_page_sorts_by_kind_and_costs_the_same_for_1_and_25_rows(
    task: Task, ana: User, client_of: ClientOf
) -> None:
    run, client = make_run(task), client_of(ana)
    assert "Choose another kind above" in page_of(client, "mining-changes", run.pk)

    def add() -> None:
        RunMatch.objects.create(
            run=run, instruction=make_instruction(task), kind=MatchKind.REWORDED, proposed_text="If x, then label y."
        )

    add()
    url = reverse("mining-changes", args=["nda", run.pk])
    first = queries_of(client, url)
    for _ in range(24):
        add()
    assert queries_of(client, url) == first
    assert "Reworded 25" in page_of(client, "mining-changes", run.pk)
    assert "None of this kind" in page_of(client, "mining-changes", run.pk, query="kind=lost")


# Suspect labels, and marks on a card.


def test_suspects_show_both_rules_and_cost_the_same_for_1_and_25_rows(
    task: Task, ada: User, client_of: ClientOf
) -> None:
    run, client = make_run(task), client_of(ada)
    assert "No label looks wrong" in page_of(client, "mining-suspects", run.pk)

    def add(rank: int) -> None:
        odd, near = make_trace(task, label="Breach", instruction=f"Odd {rank}."), make_trace(task)
        Suspect.objects.create(run=run, rank=rank, trace=odd, neighbour=near, others=9, looked_at=10, similarity=0.5)

    add(1)
    url = reverse("mining-suspects", args=["nda", run.pk])
    first = queries_of(client, url)
    page = page_of(client, "mining-suspects", run.pk)
    assert "Odd 1." in page
    assert "9 of 10" in page
    for rank in range(2, 26):
        add(rank)
    assert queries_of(client, url) == first


def test_the_card_marks_small_groups_and_what_was_left_out(task: Task, ana: User, client_of: ClientOf) -> None:
    small = make_instruction(task, provenance={"small_group": True})
    left_out = make_instruction(task, "If x, then y.", origin=InstructionOrigin.UNCOVERED)
    assert "Small group" in page_of(client_of(ana), "instruction-detail", small.number)
    assert "Draft of what was left out" in page_of(client_of(ana), "instruction-detail", left_out.number)


def test_text_of_a_conflict_is_shown_as_text(task: Task, ana: User, client_of: ClientOf) -> None:
    conflict = make_conflict(make_run(task))
    MicroRule.objects.update(text="<script>alert(1)</script> If \u202ex, then y.")
    for name, args in (("conflict-list", ()), ("instruction-detail", (conflict.first.number,))):
        answer: Any = client_of(ana).get(reverse(name, args=["nda", *args]))
        assert "<script>alert" not in answer.content.decode()
        assert "U+202E" in answer.content.decode()


# Before a first judgement: what the card holds back, no other page shows.


class TestBeforeAJudgement:
    """The figures of both, and the wording of cards whose evidence comes first, on every page that speaks of them."""

    @pytest.fixture
    def conflict(self, task: Task) -> Conflict:
        made = make_conflict(make_run(task), strength=0.37)
        Instruction.objects.update(support=7654)
        call = make_call(make_endpoint("http://127.0.0.1:9/v1"))
        ConflictJudgement.objects.create(
            conflict=made,
            relation="contradicts",
            reason="They cannot both be so.",
            teacher="T-1",
            call=call,
            first_sha256="0" * 64,
            second_sha256="0" * 64,
        )
        for row in (made.first, made.second):
            RunMatch.objects.create(
                run=made.run, instruction=row, kind="evidence", traces_before=1111, traces_after=2222, shared=3333
            )
        return made

    def pages(self, client: Client, conflict: Conflict) -> dict[str, str]:
        card = page_of(client, "instruction-detail", conflict.first.number)
        return {
            "list": page_of(client, "conflict-list"),
            "changes": page_of(client, "mining-changes", conflict.run.pk, query="kind=evidence"),
            # Among how many traces nothing was found that contradicts it is said to everybody.
            "card": re.sub(r"None found in \d+ traces", "", card),
        }

    FIGURES = ("7654 traces", "0.37", "4 pairs of traces", "They cannot both be so.", "1,111", "2,222", "3,333")

    def test_no_figure_and_no_opinion_until_the_cards_are_opened(
        self, conflict: Conflict, ana: User, abe: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        for name, page in self.pages(client, conflict).items():
            assert [figure for figure in self.FIGURES if figure in page] == [], name
        look(conflict.first, ana)
        for name, page in self.pages(client, conflict).items():
            # The pair is about both, and one of them is still to be judged.
            assert "4 pairs of traces" not in page, name
            assert "They cannot both be so." not in page, name
        look(conflict.second, ana)
        pages = self.pages(client, conflict)
        assert [figure for figure in self.FIGURES[:4] if figure not in pages["list"]] == []
        assert [figure for figure in self.FIGURES[4:] if figure not in pages["changes"]] == []
        assert [figure for figure in self.FIGURES[3:] if figure not in pages["card"]] == []
        assert [
            figure for figure in self.FIGURES[:4] if figure not in self.pages(client_of(abe), conflict)["list"]
        ] == []

    def test_no_word_of_a_rule_whose_evidence_comes_first(
        self, task: Task, conflict: Conflict, ana: User, abe: User, client_of: ClientOf
    ) -> None:
        make_policy(task, blind_first=True, blind_percent=100)
        trace = make_trace(task, label="Breach", input={"clause": "Copies are kept.", "question": "?"})
        make_evidence(conflict.first, trace)
        cluster = Cluster.objects.create(run=conflict.run, number=1, topic=1, terms="copies", label="Breach", size=1)
        MicroRule.objects.create(run=conflict.run, trace=trace, cluster=cluster, origin="imported", text="x")
        Instruction.objects.filter(pk=conflict.first.pk).update(cluster=cluster)
        SimilarRule.objects.create(
            instruction=conflict.second, other=conflict.first, rank=1, similarity=0.8, kind="contradicts"
        )
        client = client_of(ana)
        evidence_judge(instruction=conflict.second, user=ana, supports=True)
        words = "then label Compliant."
        assert conflict.first.label == "Compliant"
        for name, args, query in (
            ("conflict-list", (), ""),
            ("mining-changes", (conflict.run.pk,), "kind=evidence"),
            ("instruction-detail", (conflict.first.number,), ""),
            ("instruction-detail", (conflict.second.number,), ""),
            ("review-queue", (), "domain=all"),
        ):
            page = page_of(client, name, *args, query=query).replace(SPOKEN.format("Compliant"), "")
            assert words not in page, (name, args)
        traces: Any = client.get(reverse("instruction-traces", args=["nda", conflict.first.number]))
        assert "<mark>" not in traces.content.decode()
        stale: Any = client.post(
            reverse("instruction-approve", args=["nda", conflict.first.number]), {"version": 99}, follow=True
        )
        assert words not in stale.content.decode().replace(SPOKEN.format("Compliant"), "")
        assert words in page_of(client_of(abe), "conflict-list")
        evidence_judge(instruction=conflict.first, user=ana, supports=True)
        assert words in page_of(client, "mining-changes", conflict.run.pk, query="kind=evidence")

    def test_the_lists_cost_the_same_for_1_and_10_rows_with_the_guard(
        self, task: Task, conflict: Conflict, ana: User, client_of: ClientOf
    ) -> None:
        make_policy(task, blind_first=True, blind_percent=100)  # by half, whether one row is among them is chance
        client = client_of(ana)
        urls = [reverse("conflict-list", args=["nda"]), reverse("mining-changes", args=["nda", conflict.run.pk])]
        first = [queries_of(client, url) for url in urls]
        for _number in range(9):
            make_conflict(conflict.run)
        assert [queries_of(client, url) for url in urls] == first

    def test_after_a_judgement_the_card_is_open_and_a_second_one_is_known_to_come_after(
        self, task: Task, ana: User, client_of: ClientOf
    ) -> None:
        make_policy(task, double_percent=100)
        one = make_instruction(task, support=7654)
        client, url = client_of(ana), reverse("instruction-detail", args=["nda", one.number])
        assert "7,654" not in page_of(client, "instruction-detail", one.number)
        approve(one, ana)
        assert JudgementContext.objects.get().seen_before is False
        assert "7,654" in page_of(client, "instruction-detail", one.number)
        assert client.get(url).status_code == 200
        undo(one, ana)
        reject(one, ana, reason="unclear")
        assert JudgementContext.objects.order_by("-event_id")[0].seen_before is True

    def test_the_number_of_members_is_a_figure_wherever_it_stands(
        self, task: Task, ana: User, abe: User, client_of: ClientOf
    ) -> None:
        one = make_instruction(task, provenance={"members": 4567, "topic": 3})
        assert "4567" not in page_of(client_of(ana), "instruction-detail", one.number)
        assert "4567" in page_of(client_of(abe), "instruction-detail", one.number)
