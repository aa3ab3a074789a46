"""What is each person's own: saved views, keys and typeface, and the order of the queue."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from pld_app.errors import InvalidInput, NotAllowed
from pld_app.models import AuditEvent, User
from rules.models import Audience, Instruction, NearDuplicate, ReviewPreference, SavedView, Task
from rules.review_keys import PRESETS, keys_checked, keys_with
from rules.selectors.review_filter import ReviewFilter
from rules.selectors.review_order import place_of, review_rows
from rules.selectors.review_tabs import Tab
from rules.services.saved_views import saved_view_delete, saved_view_save
from tests import factories

type ClientOf = Callable[[User], Client]
OPEN = ReviewFilter()


class TestSavedViews:
    def keep(self, task: Task, owner: User, audience: str = Audience.PRIVATE, **view: Any) -> SavedView:
        return saved_view_save(task=task, owner=owner, name="Mine own", audience=audience, view=ReviewFilter(**view))

    def test_a_private_one_exists_for_its_owner_alone(
        self, task: Task, ana: User, ben: User, ada: User, abe: User, client_of: ClientOf
    ) -> None:
        path = f"/tasks/nda/review/views/{self.keep(task, ana, label='Breach').slug}/"
        factories.make_instruction(task, "It is a breach.", label="Breach")
        factories.make_instruction(task, "It complies.")
        page = client_of(ana).get(path).text
        assert "It is a breach." in page
        assert "It complies." not in page
        for other in (ben, ada, abe):
            assert client_of(other).get(path).status_code == 404
            assert "Mine own" not in client_of(other).get("/tasks/nda/review/").text
        for other in (ben, ada):
            assert client_of(other).post(f"{path}delete/").status_code == 404
        # Not even the log tells of it.
        assert not AuditEvent.objects.filter(action__startswith="saved_view").exists()

    def test_a_shared_one_is_everybodys_and_on_record(
        self, task: Task, ana: User, ben: User, ada: User, client_of: ClientOf
    ) -> None:
        saved = self.keep(task, ana, Audience.TEAM, tab=Tab.DEFERRED)
        path = f"/tasks/nda/review/views/{saved.slug}/"
        assert "Mine own" in client_of(ben).get(path).text
        assert client_of(ben).post(f"{path}delete/").status_code == 422
        saved_view_delete(saved=saved, by=ada)
        recorded = AuditEvent.objects.filter(action__startswith="saved_view").order_by("pk")
        assert [event.action for event in recorded] == ["saved_view.created", "saved_view.deleted"]

    def test_the_default_is_what_the_queue_opens_with(
        self, task: Task, ana: User, ada: User, client_of: ClientOf
    ) -> None:
        factories.make_instruction(task, "It is a breach.", label="Breach")
        factories.make_instruction(task, "It complies.")
        self.keep(task, ada, Audience.DEFAULT, label="Breach")
        with pytest.raises(InvalidInput, match="default view already"):
            self.keep(task, ada, Audience.DEFAULT)
        assert "It complies." not in client_of(ana).get("/tasks/nda/review/").text
        assert "It complies." in client_of(ana).get("/tasks/nda/review/?tab=open").text

    def test_who_may_keep_which(self, task: Task, ana: User, sam: User, abe: User) -> None:
        for owner, audience in ((ana, "default"), (sam, "team"), (abe, "private")):
            with pytest.raises(NotAllowed):
                self.keep(task, owner, audience)
        for name, audience in (("", "private"), ("x" * 81, "private"), ("x", "all")):
            with pytest.raises(InvalidInput):
                saved_view_save(task=task, owner=ana, name=name, audience=audience, view=OPEN)

    def test_the_database_holds_one_default(self, task: Task, ada: User) -> None:
        self.keep(task, ada, Audience.DEFAULT)
        other = self.keep(task, ada, Audience.TEAM)
        with pytest.raises(IntegrityError, match="saved_view_one_default"), transaction.atomic():
            SavedView.objects.filter(pk=other.pk).update(audience=Audience.DEFAULT)


class TestKeys:
    @given(st.dictionaries(st.sampled_from(list(PRESETS)), st.text(max_size=2)))
    def test_whatever_is_chosen_no_two_actions_share_a_key(self, chosen: dict[str, str]) -> None:
        try:
            keys = keys_with(keys_checked(chosen))
        except InvalidInput:
            return
        assert set(keys) == set(PRESETS)
        assert len(set(keys.values())) == len(keys)
        for key in keys.values():
            assert len(key) == 1
            assert key.isprintable()
            assert not key.isspace()
            assert key not in "0123456789?"

    @pytest.mark.parametrize(
        "chosen", [{"approve": "r"}, {"defer": "3"}, {"undo": "?"}, {"next": "ab"}, {"edit": "\b"}]
    )
    def test_keys_that_clash_are_refused(self, chosen: dict[str, str]) -> None:
        with pytest.raises(InvalidInput):
            keys_checked(chosen)

    def test_two_may_be_swapped(self) -> None:
        assert keys_checked({"approve": "r", "reject": "A"}) == {"approve": "r", "reject": "a"}

    def test_the_page_saves_refuses_and_resets(
        self, instruction: Instruction, ana: User, ben: User, client_of: ClientOf
    ) -> None:
        browser = client_of(ana)
        sent = {"font": "sans", "keys_on": "on", "key-approve": "x"}
        assert browser.post("/preferences/", sent).status_code == 302
        card = browser.get(f"/tasks/nda/review/{instruction.number}/").text
        assert 'data-key="x"' in card
        assert 'data-font="sans"' in card
        assert 'data-key="x"' not in client_of(ben).get(f"/tasks/nda/review/{instruction.number}/").text
        response = browser.post("/preferences/", sent | {"key-defer": "x"})
        assert response.status_code == 422
        assert "is set for both" in response.content.decode()
        # Switched off, no letter and no digit is bound.
        browser.post("/preferences/", {"font": "sans"})
        card = browser.get(f"/tasks/nda/review/{instruction.number}/").text
        assert 'data-key="a"' not in card
        assert 'data-key="1"' not in card
        browser.post("/preferences/", {"reset": "yes"})
        row = ReviewPreference.objects.get(user=ana)
        assert (row.keys, row.keys_on, row.font) == ({}, True, "sans")


class TestOrder:
    def numbers(self, task: Task, user: User) -> list[int]:
        return list(review_rows(task, OPEN, user).values_list("number", flat=True))

    def test_topics_stand_together_and_each_reviewer_has_an_own_order_within(
        self, task: Task, ana: User, ben: User
    ) -> None:
        for number in range(24):
            factories.make_instruction(task, topic=f"topic {number % 2}")
        mine = self.numbers(task, ana)
        assert mine == self.numbers(task, ana)
        assert mine != self.numbers(task, ben)
        assert [number % 2 for number in mine] == [1] * 12 + [0] * 12
        assert sorted(mine) != mine

    def test_near_duplicates_follow_each_other_the_lowest_number_first(self, task: Task, ana: User, ben: User) -> None:
        rows = [factories.make_instruction(task) for _number in range(20)]
        for row in (rows[2], rows[9], rows[17]):
            NearDuplicate.objects.create(instruction=row, family=3)
        for user in (ana, ben):
            numbers = self.numbers(task, user)
            at = numbers.index(3)
            assert numbers[at : at + 3] == [3, 10, 18]

    def test_a_place_is_the_one_in_the_list(self, task: Task, ana: User) -> None:
        for number in range(15):
            factories.make_instruction(task, topic=f"topic {number % 4}", label=["Compliant", "Breach"][number % 2])
        NearDuplicate.objects.create(instruction=Instruction.objects.get(number=5), family=1)
        for view in (OPEN, ReviewFilter(label="Breach"), ReviewFilter(tab=Tab.DEFERRED)):
            order = list(review_rows(task, view, ana).values_list("number", flat=True))
            everything = self.numbers(task, ana)
            for row in Instruction.objects.filter(task=task):
                place = place_of(row, view, ana)
                others = [number for number in order if number != row.number]
                behind = [number for number in others if everything.index(number) > everything.index(row.number)]
                ahead = [number for number in others if everything.index(number) < everything.index(row.number)]
                assert place.total == len(order)
                assert place.position == (order.index(row.number) + 1 if row.number in order else None)
                assert place.next == (behind[0] if behind else None)
                assert place.previous == (ahead[-1] if ahead else None)
