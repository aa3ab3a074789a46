"""The policy, the figures and the check items as people see them: who sees what, and that the figures are right."""

import csv
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from pld_app.models import AuditEvent, Notification, Role, User
from rules.figures import line_figure
from rules.models import CardLook, Instruction, PauseReason, ReviewPolicy, ReviewSession, Seed, SeedKind, Task
from rules.selectors import quality
from rules.selectors.review_progress import burn_down, progress_of
from rules.services.attention import pause_open
from rules.services.review_policy import FIELDS
from rules.services.seeds import seed_make
from tests.factories import audit_actions, make_instruction, make_policy, make_user
from tests.review.conftest import RULE, approve, edit, reject, reopen

type ClientOf = Callable[[User], Client]


def url(name: str, *args: object) -> str:
    return reverse(name, args=["nda", *args])


def words(response: Any) -> str:
    return " ".join(response.content.decode().split())


def form(task: Task, **changes: Any) -> dict[str, Any]:
    present = task.review_policies.latest("version")
    values = {name: getattr(present, name) for name in FIELDS} | changes
    kept = {name: value for name, value in values.items() if value is not False}
    return {"expected": present.version, **kept}


class TestPolicy:
    def test_an_administrator_changes_it_on_record(self, task: Task, ada: User, client_of: ClientOf) -> None:
        response = client_of(ada).post(url("review-policy-change"), form(task, double_percent=30, blind_first=True))
        assert response.status_code == 302
        newest = task.review_policies.latest("version")
        assert (newest.version, newest.double_percent, newest.author) == (2, 30, ada)
        assert audit_actions(task)[-1] == "review_policy.changed"
        assert newest.event is not None
        assert newest.event.data["changed"]["double_percent"] == {"from": 0, "to": 30}
        assert "double_percent: 0 → 30" in words(client_of(ada).get(url("review-policy")))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"double_percent": 101}, "less than or equal to 100"),
            ({}, "Nothing was changed"),
            ({"age_soon_days": 9, "age_late_days": 3}, "Overdue cannot come before"),
            ({"expected": 0, "double_percent": 9}, "Someone changed the policy"),
        ],
    )
    def test_what_does_not_fit_comes_back(
        self, task: Task, ada: User, client_of: ClientOf, changes: dict[str, Any], said: str
    ) -> None:
        sent = form(task) | changes
        response = client_of(ada).post(url("review-policy-change"), sent)
        assert response.status_code == 422
        assert said in words(response)
        assert ReviewPolicy.objects.filter(task=task).count() == 1

    def test_everybody_reads_it_and_nobody_the_key(self, task: Task, ana: User, client_of: ClientOf) -> None:
        page = words(client_of(ana).get(url("review-policy")))
        assert "Version 1" in page
        assert '<form method="post" class="card"' not in page
        assert task.review_policies.get().draw_key not in page


@pytest.fixture
def cem(db: None) -> User:
    return make_user("cem", Role.REVIEWER, "legal")


def timed(instruction: Instruction, user: User, seconds: float) -> None:
    instruction.refresh_from_db()
    CardLook.objects.create(
        user=user,
        instruction=instruction,
        version=instruction.version,
        opened_at=timezone.now() - timedelta(seconds=seconds),
    )


class TestFigures:
    def test_pace_overturns_and_progress(self, task: Task, ana: User, ben: User, ada: User) -> None:
        rows = [make_instruction(task, f"{RULE} {n}") for n in range(8)]
        for place, row in enumerate(rows[:6], 1):
            timed(row, ana, place * 10)
            approve(row, ana)
        reopen(rows[0], ben, note="Wrong.")
        reopen(rows[1], ana, note="Mine.")
        reject(rows[6], ben, reason="unclear")
        found = quality.quality_of_person(quality.facts_of(task), ana)
        assert (found.judgements, found.approved) == (6, 6)
        assert found.pace.median == pytest.approx(35, abs=2)
        assert found.pace.p90 == pytest.approx(55, abs=2)
        assert found.overturned.value == pytest.approx(1 / 6)
        assert found.overturned.n == 6
        assert quality.quality_of_person(quality.facts_of(task), ben).pace.median is None
        assert {part.key: part.count for part in progress_of(task, ada)} == {
            "approved": 4,
            "rejected": 1,
            "disputed": 0,
            "in_review": 2,
            "proposed": 1,
        }
        assert burn_down(task, ada)[-1].left == 3

    def test_agreement_counts_the_first_blind_pair_of_each(self, task: Task, ana: User, ben: User, cem: User) -> None:
        make_policy(task, double_percent=100, double_edited=True)
        rows = [make_instruction(task, f"{RULE} {n}") for n in range(12)]
        for row in rows[:10]:
            approve(row, ana)
            approve(row, ben)
        reject(rows[10], ana, reason="unclear")
        approve(rows[10], ben)
        reject(rows[10], cem, reason="unclear")
        edit(rows[11], ana, text="Something else altogether.")
        reject(rows[11], ben, reason="unclear")
        reopen(rows[0], cem, note="Again.")
        approve(rows[0], cem)
        reject(rows[0], ben, reason="unclear")
        found = quality.quality_of_task(quality.facts_of(task))
        assert found.agreement.n == 11
        assert found.agreement.raw.value == pytest.approx(10 / 11)
        assert [pair.instruction.number for pair in quality.disagreements_of(quality.facts_of(task))] == [11]
        mine = quality.quality_of_person(quality.facts_of(task), ben)
        assert mine.overturned.n == 10
        assert mine.overturned.value == pytest.approx(1 / 10)
        theirs = quality.quality_of_person(quality.facts_of(task), ana).overturned
        assert (theirs.value, theirs.n) == (0.0, 11)
        assert [one.agreement.n for one in quality.quality_by_domain(quality.facts_of(task))] == [11, 11]

    def test_check_items_count_in_their_own_figure_alone(self, task: Task, ana: User, ada: User) -> None:
        for number in range(4):
            source = make_instruction(task, f"Copies of {number} may be kept.")
            made = seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.POLARITY)
            (approve if number == 0 else reject)(
                made.instruction, ana, **({} if number == 0 else {"reason": "unclear"})
            )
        found = quality.quality_of_person(quality.facts_of(task), ana)
        assert (found.judgements, found.seeds_caught.n, found.seeds_caught.value) == (0, 4, 0.75)
        assert found.seeds_caught.low == pytest.approx(0.1941, abs=1e-3)
        assert sum(part.count for part in progress_of(task, ada)) == 4

    def test_few_queries_however_many_people(
        self, task: Task, ana: User, abe: User, client_of: ClientOf, django_assert_num_queries: Any
    ) -> None:
        client = client_of(abe)
        approve(make_instruction(task), ana)
        client.get(url("review-quality"))
        with django_assert_num_queries(35, exact=False):
            client.get(url("review-quality"))
        for number in range(12):
            approve(make_instruction(task, f"{RULE} {number}"), make_user(f"r{number}", Role.REVIEWER, "legal"))
        with django_assert_num_queries(35, exact=False):
            assert "R11" in words(client.get(url("review-quality")))

    def test_a_line_needs_two_days(self) -> None:
        assert line_figure([("11-01", 4)]) is None
        figure = line_figure([("11-01", 4), ("11-02", 0), ("11-03", 2)])
        assert figure is not None
        assert figure.path.count("L") == 2
        assert figure.end.text == "2"


class TestWhoSeesWhat:
    def test_a_reviewer_sees_their_own_and_a_signatory_the_progress(
        self, task: Task, ana: User, ben: User, sam: User, abe: User, client_of: ClientOf
    ) -> None:
        approve(make_instruction(task), ana)
        client_of(ana).post(url("review-session"))
        for person, seen in ((ana, False), (sam, False), (abe, True)):
            page = words(client_of(person).get(url("review-quality")))
            assert ("Ben" in page) is seen
            assert ("By person" in page) is seen
        rows = list(csv.DictReader(words_csv(client_of(ana).get(url("review-quality-export")))))
        assert [(row["who"], row["domain_or_person"], row["judgements"]) for row in rows] == [("person", "Ana", "1")]
        assert list(csv.DictReader(words_csv(client_of(sam).get(url("review-quality-export"))))) == []
        everyone = list(csv.DictReader(words_csv(client_of(abe).get(url("review-quality-export")))))
        assert {row["who"] for row in everyone} == {"all", "domain", "person"}

    def test_an_administrator_lifts_a_pause_with_a_note(
        self, task: Task, ana: User, ada: User, client_of: ClientOf
    ) -> None:
        pause = pause_open(task=task, user=ana, reason=PauseReason.SPEED)
        assert set(Notification.objects.values_list("user__username", "kind")) == {
            ("ada", "review.paused"),
            ("ana", "review.paused"),
        }
        client = client_of(ada)
        assert "Paused reviewers" in words(client.get(url("review-quality")))
        assert client.post(url("review-pause-lift", pause.pk), {"note": " "}).status_code == 422
        assert client.post(url("review-pause-lift", pause.pk), {"note": "We talked."}).status_code == 302
        assert client.post(url("review-pause-lift", pause.pk), {"note": "We talked."}).status_code == 409
        assert AuditEvent.objects.filter(action="review_pause.lifted").count() == 1
        assert Notification.objects.filter(user=ana, kind="review.pause_lifted").count() == 1


def words_csv(response: Any) -> list[str]:
    return list(response.content.decode("utf-8-sig").splitlines())


class TestSeedsAndSessions:
    def test_made_shown_and_retired(self, task: Task, ada: User, abe: User, client_of: ClientOf) -> None:
        make_instruction(task, "Copies may be kept for 30 days unless due.")
        client = client_of(ada)
        assert client.post(url("seeds-make"), {"count": 0}).status_code == 422
        assert client.post(url("seeds-make"), {"count": 1}).status_code == 302
        assert client.post(url("seeds-make"), {"source": 77, "kind": "scope"}).status_code == 422
        seed = Seed.objects.get()
        assert "Right answer" in words(client_of(abe).get(url("review-seeds")))
        assert "Make several" not in words(client_of(abe).get(url("review-seeds")))
        assert client.post(url("seed-retire", seed.pk)).status_code == 302
        assert client.post(url("seed-retire", seed.pk)).status_code == 409

    def test_answers_are_shown_when_the_session_has_ended(
        self, task: Task, ada: User, ana: User, client_of: ClientOf
    ) -> None:
        source = make_instruction(task, "Copies may be kept.")
        seed = seed_make(task=task, admin=ada, source_number=source.number, kind=SeedKind.POLARITY)
        client = client_of(ana)
        assert "No session yet" in words(client.get(url("review-session")))
        approve(seed.instruction, ana)
        assert "became" not in words(client.get(url("review-session")))
        client.post(url("review-session"))
        page = words(client.get(url("review-session")))
        assert "Missed" in page
        assert "“may” became “may not”." in page
        assert ReviewSession.objects.get().ended_at is not None

    def test_a_break_of_a_quarter_of_an_hour_begins_a_new_one(self, task: Task, ana: User) -> None:
        approve(make_instruction(task), ana)
        ReviewSession.objects.update(last_at=timezone.now() - timedelta(minutes=16))
        approve(make_instruction(task), ana)
        first, second = ReviewSession.objects.order_by("pk")
        assert (first.items, second.items) == (1, 1)
        assert first.ended_at is not None
        assert second.ended_at is None
