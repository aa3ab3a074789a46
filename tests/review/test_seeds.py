"""Check items: how they are made, that nothing tells them from the rest, and that none can ever be published."""

import re
from collections.abc import Callable
from difflib import ndiff
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput, NotAllowed, Refusal
from pld_app.models import User
from rules import perturbations
from rules.models import (
    EvidenceRole,
    Instruction,
    InstructionStatus,
    JudgementContext,
    MatchKind,
    MiningRun,
    PauseReason,
    ReviewPause,
    Revision,
    RulesetItem,
    RunMatch,
    RunState,
    Seed,
    SeedAlarm,
    SeedAnswer,
    SeedKind,
    Task,
)
from rules.selectors.review_filter import ReviewFilter, queue_counts
from rules.selectors.tasks import review_counts, task_list
from rules.services.rulesets import ruleset_create, ruleset_item_add
from rules.services.seeds import numbers_with_gaps, seed_make, seed_retire, seeds_make
from tests.factories import approve_directly, make_evidence, make_instruction, make_policy, make_trace, text_row
from tests.publishing import steps
from tests.review.conftest import approve, defer, edit, reject, send_back, undo

type ClientOf = Callable[[User], Client]
TEXT = "If copies may be kept for 30 days in writing, then label Compliant."


@pytest.fixture
def source(task: Task) -> Instruction:
    made = make_instruction(task, TEXT, support=7, contradictions=2, domain="legal", topic="copies")
    make_evidence(made, make_trace(task))
    make_evidence(made, make_trace(task, label="Breach"), EvidenceRole.CONTRADICTING)
    return made


@pytest.fixture
def seed(task: Task, source: Instruction, ada: User) -> Seed:
    return seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.POLARITY)


def text_of(seed: Seed) -> str:
    revision = seed.instruction.current_revision
    assert revision is not None
    return revision.text


@pytest.mark.parametrize(
    ("change", "text", "wrong"),
    [
        (perturbations.polarity_flipped, TEXT, TEXT.replace("may be", "may not be")),
        (perturbations.polarity_flipped, "Copies must not be kept.", "Copies must be kept."),
        (perturbations.polarity_flipped, "May copies be kept", "May not copies be kept"),
        (perturbations.polarity_flipped, "Copies.", None),
        (perturbations.threshold_altered, TEXT, TEXT.replace("30", "60")),
        (perturbations.threshold_altered, "within thirty days", "within ninety days"),
        (perturbations.threshold_altered, "within 0 days", "within 1 days"),
        (perturbations.threshold_altered, "soon", None),
        (perturbations.scope_widened, TEXT, TEXT.replace(" in writing", "")),
        (perturbations.scope_widened, "Keep it unless asked, then go.", "Keep it, then go."),
        (perturbations.scope_widened, "Keep it.", None),
    ],
)
def test_what_a_change_does(change: Callable[[str], tuple[str, str] | None], text: str, wrong: str | None) -> None:
    found = change(text)
    assert (found[0] if found else None) == wrong


@given(st.text(max_size=200))
def test_a_change_is_a_change_or_nothing(text: str) -> None:
    for change in (perturbations.polarity_flipped, perturbations.threshold_altered, perturbations.scope_widened):
        found = change(text)
        assert found is None or found[0] != text


class TestMaking:
    def test_all_but_the_text_is_the_sources(self, seed: Seed, source: Instruction) -> None:
        made = seed.instruction
        assert text_of(seed) == TEXT.replace("may be", "may not be")
        assert (made.is_seeded, made.status, seed.expected) == (True, "proposed", "reject")
        for name in ("label", "topic", "domain", "origin", "support", "contradictions", "created_at", "run", "cluster"):
            assert getattr(made, name) == getattr(source, name), name
        theirs = list(source.evidence.values_list("trace", "role", "rank"))
        assert list(made.evidence.values_list("trace", "role", "rank")) == theirs

    def test_each_kind(self, task: Task, source: Instruction, ada: User, ana: User) -> None:
        make_instruction(task, "If notice is due, then label Compliant.", topic="notice")
        for kind in (SeedKind.GOOD, SeedKind.CONTRADICTING):
            with pytest.raises(InvalidInput, match="does not apply"):
                seed_make(task=task, admin=ada, source_number=source.number, kind=kind)
        approve_directly(source, ana)
        with pytest.raises(InvalidInput, match="does not apply"):
            seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.CONTRADICTING)
        make_instruction(task, "If copies leave the house, then label Breach.", label="Breach", topic="copies")
        made = {kind: seed_make(task=task, admin=ada, source_number=1, kind=kind) for kind in SeedKind}
        assert text_of(made[SeedKind.GOOD]) == TEXT
        assert made[SeedKind.GOOD].expected == "approve"
        assert made[SeedKind.CONTRADICTING].instruction.label == "Breach"
        assert "label Breach" in text_of(made[SeedKind.CONTRADICTING])
        assert "notice" in text_of(made[SeedKind.UNSUPPORTED])
        with pytest.raises(InvalidInput, match="does not apply"):
            seed_make(task=task, admin=ada, source_number=1, kind=SeedKind.POLARITY)  # that text is there already

    def test_many_are_mixed(self, task: Task, ada: User, ana: User) -> None:
        for number in range(12):
            approve_directly(make_instruction(task, f"Copies of {number} may be kept for 30 days unless due."), ana)
        made = seeds_make(task=task, admin=ada, count=10)
        assert len(made) == 10
        assert sum(one.kind == SeedKind.GOOD for one in made) == 2
        assert len({one.source_id for one in made}) == 10

    def test_only_an_administrator_makes_and_retires(self, task: Task, seed: Seed, ana: User, ada: User) -> None:
        with pytest.raises(NotAllowed):
            seed_make(task=task, admin=ana, source_number=1, kind=SeedKind.THRESHOLD)
        with pytest.raises(NotAllowed):
            seed_retire(task=task, seed_id=seed.pk, admin=ana)
        seed_retire(task=task, seed_id=seed.pk, admin=ada)
        seed.instruction.refresh_from_db()
        assert seed.instruction.status == "superseded"

    def test_numbers_are_left_free_for_them(self, task: Task, source: Instruction, ada: User) -> None:
        assert numbers_with_gaps(task, 20) == list(range(2, 22))
        make_policy(task, seed_percent=10)
        numbers = numbers_with_gaps(task, 40)
        assert len(set(numbers)) == 40
        assert numbers == sorted(numbers)
        assert min(numbers) > 1
        assert max(numbers) <= 45
        make_instruction(task, "Far off.", number=9)
        made = seed_make(task=task, admin=ada, source_number=1, kind=SeedKind.POLARITY)
        assert 2 <= made.instruction.number <= 8


class TestNothingTellsThem:
    def test_card_and_queue_are_those_of_the_source_but_for_text_and_number(
        self, task: Task, source: Instruction, seed: Seed, ana: User, client_of: ClientOf
    ) -> None:
        client = client_of(ana)
        cards = []
        for row in (source, seed.instruction):
            page = client.get(reverse("instruction-detail", args=["nda", row.number])).content.decode()
            assert "seed" not in page.lower()
            cards.append(_plain(page, row))
        different = [line for line in ndiff(cards[0].split("> "), cards[1].split("> ")) if line[:1] in "+-"]
        assert different == []
        for path in (reverse("review-queue", args=["nda"]), "/tasks/nda/"):
            assert "seed" not in client.get(path, {"domain": "all"}).content.decode().lower()

    def test_the_answer_waits_like_any_that_was_drawn(
        self, task: Task, seed: Seed, ana: User, client_of: ClientOf
    ) -> None:
        make_policy(task, double_percent=100)
        other = make_instruction(task, "If notice is due, then label Compliant.", topic="copies")
        client = client_of(ana)
        said = []
        for row in (other, seed.instruction):
            path = reverse("instruction-approve", args=["nda", row.number])
            page = client.post(path, {"version": 1}, follow=True).content.decode()
            said.append(f"Kept for #{row.number}" in page)
            card = client.get(reverse("instruction-detail", args=["nda", row.number])).content.decode()
            assert "Your decision to approve is kept" in card
        assert said == [True, True]
        undo(seed.instruction, ana)
        reject(seed.instruction, ana, reason="unclear")

    def test_they_count_for_who_must_not_know_them_alone(
        self, task: Task, source: Instruction, seed: Seed, ana: User, ada: User
    ) -> None:
        for person, count in ((ada, 1), (ana, 2)):
            assert review_counts(task, person).open == count
            assert task_list(person).get(pk=task.pk).open_count == count  # type: ignore[attr-defined]
            assert queue_counts(task, ReviewFilter(), person).total == count

    def test_a_run_that_lists_its_source_lists_it(self, task: Task, source: Instruction, ada: User) -> None:
        run = MiningRun.objects.create(task=task, number=1, state=RunState.SUCCEEDED)
        Instruction.objects.filter(pk=source.pk).update(run=run)
        RunMatch.objects.create(run=run, instruction=source, kind=MatchKind.NEW)
        made = seed_make(task=task, admin=ada, source_number=1, kind=SeedKind.POLARITY)
        assert RunMatch.objects.filter(run=run, instruction=made.instruction).exists()


def _plain(page: str, row: Instruction) -> str:

    text = row.current_revision.text if row.current_revision else ""
    page = page.replace(text, "TEXT").replace(sha256_hex(text), "HASH").replace(sha256_hex(text)[:12], "HASH")
    page = re.sub(r"menu-[0-9a-f]{8}|csrfmiddlewaretoken\" value=\"\w+|X-CSRFToken\": \"\w+", "", page)
    found = re.search(r"<article.*</article>", page, flags=re.DOTALL)
    assert found
    page = found.group(0)
    # Its place in the queue is its own.
    aside = r"<nav class=\"breadcrumb.*?</nav>|<div class=\"action-meta\">.*?</div>|rel=\"(prev|next)\".*?</a>"
    page = re.sub(aside, "", page, flags=re.DOTALL)
    page = re.sub(r"<mark>|</mark>|<span class=\"num\">.*?</span>", "", page)
    page = re.sub(r"[0-9a-f]{8,}|\d+", "N", page)
    return " ".join(page.split())


class TestNeverPublished:
    """C23: by no path."""

    def test_no_approval_however_many_agree(self, task: Task, seed: Seed, ana: User, ben: User) -> None:
        row = seed.instruction
        for person in (ana, ben):
            approve(row, person)
        row.refresh_from_db()
        assert row.status == "proposed"
        with pytest.raises(IntegrityError, match="pld: a check item is never"), transaction.atomic():
            approve_directly(row, ben)

    def test_no_status_by_shell_or_sql(self, seed: Seed) -> None:
        row = Instruction.objects.filter(pk=seed.instruction_id)
        for values in (
            {"status": InstructionStatus.APPROVED, "approved_revision": seed.instruction.current_revision},
            {"status": InstructionStatus.REJECTED},
            {"is_seeded": False},
        ):
            with pytest.raises(IntegrityError, match="pld: "), transaction.atomic():
                row.update(**values)
        with connection.cursor() as cursor, pytest.raises(IntegrityError, match="pld: "), transaction.atomic():
            cursor.execute("UPDATE rules_instruction SET is_seeded = false WHERE id = %s", [seed.instruction_id])

    def test_no_ruleset_takes_it(self, task: Task, seed: Seed, ana: User) -> None:
        ruleset = steps.draft(task, ana, 1)
        with pytest.raises(Refusal):
            ruleset_item_add(
                ruleset_id=ruleset.pk, instruction_id=seed.instruction_id, editor=ana, version=ruleset.version
            )
        with pytest.raises(IntegrityError, match="pld: only the approved"), transaction.atomic():
            RulesetItem.objects.create(
                ruleset=ruleset, position=9, instruction=seed.instruction, revision=text_row(seed.instruction)
            )
        assert seed.instruction_id not in ruleset.items.values_list("instruction", flat=True)

    def test_nor_a_copy_of_its_words(self, task: Task, seed: Seed, ana: User) -> None:
        """As an import or a careless hand would bring them: in an instruction of its own that somebody approved."""
        copied = approve_directly(make_instruction(task, text_of(seed)), ana)
        with pytest.raises(NotAllowed, match="check item"):
            ruleset_create(task=task, composer=ana)
        ruleset = task.rulesets.create(number=99, name="x", composed_by=ana)
        with pytest.raises(IntegrityError, match="pld: the text of a check item"), transaction.atomic():
            ruleset.items.create(position=1, instruction=copied, revision=text_row(copied))
        insert = (
            "INSERT INTO rules_rulesetitem (ruleset_id, position, instruction_id, revision_id) VALUES (%s, 1, %s, %s)"
        )
        with connection.cursor() as cursor, pytest.raises(IntegrityError, match="check item"), transaction.atomic():
            cursor.execute(insert, [ruleset.pk, copied.pk, copied.current_revision_id])

    def test_a_seed_is_of_a_check_item_and_stays(self, task: Task, source: Instruction, seed: Seed) -> None:
        plain = make_instruction(task, "Another.")
        values: dict[str, Any] = {"kind": "polarity", "expected": "reject", "explanation": "x", "event": seed.event}
        for pair in ({"instruction": plain, "source": source}, {"instruction": plain, "source": seed.instruction}):
            with pytest.raises(IntegrityError, match="pld: a seed is"), transaction.atomic():
                Seed.objects.create(**pair, **values)
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            Seed.objects.update(expected="approve", kind="good")


class TestAnswers:
    @pytest.mark.parametrize(
        ("act", "more", "is_right"),
        [
            (approve, {}, False),
            (reject, {"reason": "unclear"}, True),
            (send_back, {"reason": "scope"}, True),
            (edit, {"text": "Something better."}, True),
            (defer, {}, None),
        ],
    )
    def test_a_wrong_one(self, seed: Seed, ana: User, act: Any, more: dict[str, str], is_right: bool | None) -> None:
        act(seed.instruction, ana, **more)
        found = SeedAnswer.objects.first()
        assert (found.is_right if found else None) is is_right
        assert JudgementContext.objects.count() == 1

    def test_the_first_answer_counts(self, seed: Seed, ana: User) -> None:
        approve(seed.instruction, ana)
        undo(seed.instruction, ana)
        reject(seed.instruction, ana, reason="unclear")
        assert not SeedAnswer.objects.get().is_right

    def test_a_right_one(self, task: Task, source: Instruction, ada: User, ana: User, ben: User) -> None:
        approve_directly(source, ben)
        good = seed_make(task=task, admin=ada, source_number=1, kind=SeedKind.GOOD)
        reject(good.instruction, ben, reason="duplicate")
        assert not SeedAnswer.objects.exists()
        approve(good.instruction, ana)
        assert SeedAnswer.objects.get().is_right

    def test_two_wrong_of_ten_alarm_and_two_alarms_in_a_row_pause(self, task: Task, ada: User, ana: User) -> None:
        seeds = []
        for number in range(12):
            source = make_instruction(task, f"Copies of {number} may be kept.")
            seeds.append(seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.POLARITY))
        approve(seeds[0].instruction, ana)
        assert not SeedAlarm.objects.exists()
        approve(seeds[1].instruction, ana)
        assert SeedAlarm.objects.get().block == 1
        for one in seeds[2:10]:
            reject(one.instruction, ana, reason="unclear")
        assert not ReviewPause.objects.exists()
        for one in seeds[10:]:
            approve(one.instruction, ana)
        assert list(SeedAlarm.objects.order_by("block").values_list("block", flat=True)) == [1, 2]
        assert ReviewPause.objects.get().reason == PauseReason.SEEDS

    def test_reworded_by_somebody_it_is_no_check_any_more(self, seed: Seed, ana: User, ben: User) -> None:
        edit(seed.instruction, ana, text="Something better.")
        approve(seed.instruction, ben)
        assert SeedAnswer.objects.filter(user=ben).count() == 0
        assert Revision.objects.filter(instruction=seed.instruction).count() == 2
