"""Comparing two rulesets: the smallest honest account of what changed, on the page and as data."""

import json
from collections.abc import Callable

import pytest
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from pld_app.models import AuditEvent, User
from rules.changes import RowKind, changes_between, side_by_side
from rules.manifest import ManifestInstruction
from rules.models import Instruction, Task
from rules.selectors.compare import comparison, side_get
from tests.factories import approve_directly, make_instruction, make_task
from tests.publishing import steps
from tests.publishing.test_manifest import instruction

type ClientOf = Callable[[User], Client]

lists = st.lists(st.integers(1, 12), unique=True, max_size=12)


def named(numbers: list[int], words: str = "If it holds, then label Compliant.") -> list[ManifestInstruction]:
    return [instruction(number, f"{number}: {words}") for number in numbers]


@settings(max_examples=300, deadline=None)
@given(old=lists, new=lists)
def test_side_by_side_holds_both_lists_whole_and_in_order(old: list[int], new: list[int]) -> None:
    rows = side_by_side(named(old), named(new))
    assert [row.old.number for row in rows if row.old] == old
    assert [row.new.number for row in rows if row.new] == new
    moved = {one.instruction.number for one in changes_between(named(old), named(new)).moved}
    for kind in (RowKind.MOVED_AWAY, RowKind.MOVED_HERE):
        assert {(row.old or row.new).number for row in rows if row.kind == kind} == moved  # type: ignore[union-attr]


@settings(max_examples=200, deadline=None)
@given(order=st.permutations(list(range(1, 8))))
def test_a_move_is_never_a_removal_and_an_addition(order: list[int]) -> None:
    changes = changes_between(named(list(range(1, 8))), named(order))
    assert (changes.added, changes.removed, changes.kept) == ((), (), 7)


def test_one_line_taken_to_the_end_is_one_move() -> None:
    changes = changes_between(named([1, 2, 3, 4, 5]), named([2, 3, 4, 5, 1]))
    assert [(one.instruction.number, one.old_place, one.new_place) for one in changes.moved] == [(1, 1, 5)]


def test_a_changed_label_is_named() -> None:
    (old,) = named([1])
    changes = changes_between([old], [old.model_copy(update={"label": "Breach"})])
    assert [(one.old.label, one.new.label) for one in changes.relabelled] == [("Compliant", "Breach")]


@pytest.fixture
def two(task: Task, ana: User, ben: User, sam: User, sue: User) -> Task:
    """Release 1 in production; ruleset 2 in sign-off rewords #1 and adds one; the task's preamble changed between."""
    steps.in_production(task, ana, sam, sue)
    one = Instruction.objects.get(number=1)
    steps.reopen(one, ben)
    steps.edit(one, ben, "If clause 1 forbids copies, then label Breach.")
    approve_directly(one, ana)
    approve_directly(make_instruction(task, "A wholly new text."), ana)
    Task.objects.filter(pk=task.pk).update(preamble="You check clauses with care.")
    task.refresh_from_db()
    steps.again_frozen(task, ana)
    return task


def test_any_two_are_compared_with_their_frame(two: Task) -> None:
    compared = comparison(side_get(two, "v1"), side_get(two, "2"))
    assert [one.number for one in compared.changes.added] == [4]
    assert [one.new.number for one in compared.changes.reworded] == [1]
    assert [one.name for one in compared.frame] == ["Preamble"]
    assert comparison(side_get(two, "1"), side_get(two, "v1")).is_empty


def test_the_page_shows_it_inline_and_side_by_side(two: Task, abe: User, client_of: ClientOf) -> None:
    browser = client_of(abe)
    assert browser.get("/tasks/nda/rulesets/compare/").status_code == 200
    inline = browser.get("/tasks/nda/rulesets/compare/?old=v1&new=2").content.decode()
    assert all(words in inline for words in ("1 added", "1 reworded", "A wholly new text.", "Preamble", "Release v1"))
    sides = browser.get("/tasks/nda/rulesets/compare/?old=v1&new=2&view=side").content.decode()
    assert "unchanged" in sides
    assert "approved by" in inline
    for wrong in ("old=v9&new=2", "old=x&new=2", "old=1&new=99999999999", "old=v&new=2"):
        assert browser.get(f"/tasks/nda/rulesets/compare/?{wrong}").status_code == 404


def test_the_export_is_data_and_is_recorded(two: Task, abe: User, client_of: ClientOf) -> None:
    data = json.loads(client_of(abe).get("/tasks/nda/rulesets/compare/v1/2.json").content)
    assert (data["old"]["release"], data["new"]["ruleset"], data["kept"]) == (1, 2, 2)
    assert data["reworded"][0]["new"] == "If clause 1 forbids copies, then label Breach."
    assert AuditEvent.objects.get(action="comparison.exported").data == {"old": "v1", "new": "2"}


def test_a_ruleset_of_another_task_is_not_there(two: Task, abe: User, client_of: ClientOf) -> None:
    make_task("ads")
    assert client_of(abe).get("/tasks/ads/rulesets/compare/?old=1&new=1").status_code == 404
