"""Queue, card, next and decision ask the database as often at twenty thousand candidates as at a hundred."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from pld_app import session_store
from pld_app.models import User
from rules.models import Instruction, Task
from rules.selectors.review_order import in_order

type ClientOf = Callable[[User], Client]

_INSTRUCTIONS = """
INSERT INTO rules_instruction (task_id, number, label, topic, domain, origin, is_seeded, provenance, flags, support,
                               contradictions, status, waiting, version, created_at)
SELECT %(task)s, n, CASE n %% 2 WHEN 0 THEN 'Compliant' ELSE 'Breach' END, 'topic ' || lpad((n / 30)::text, 4, '0'), '',
       'extractive', false, '{}', '[]', 5, 5, 'proposed', '', 1, now()
FROM generate_series(%(first)s::int, %(last)s::int) n
"""
_REVISIONS = """
INSERT INTO rules_revision (instruction_id, number, text, text_sha256, created_at)
SELECT i.id, 1, t.text, encode(sha256(convert_to(t.text, 'UTF8')), 'hex'), now()
FROM rules_instruction i CROSS JOIN LATERAL (SELECT 'If copies of kind ' || i.number || ' are kept, then so.' AS text) t
WHERE i.task_id = %(task)s AND i.current_revision_id IS NULL
"""
_CURRENT = """
UPDATE rules_instruction i SET current_revision_id = r.id FROM rules_revision r
WHERE r.instruction_id = i.id AND i.current_revision_id IS NULL AND i.task_id = %(task)s
"""


def grow(task: Task, first: int, last: int) -> None:
    """Candidates `first` to `last`, thirty a topic, written in bulk through every guard."""
    with connection.cursor() as cursor:
        for statement in (_INSTRUCTIONS, _REVISIONS, _CURRENT):
            cursor.execute(statement, {"task": task.pk, "first": first, "last": last})
        cursor.execute("ANALYZE rules_instruction")


def queries(browser: Client, decided: int) -> dict[str, int]:
    """How many queries each step of a reviewer's round asks; `decided` is an untouched instruction."""
    base, view = "/tasks/nda/review/", "?tab=open&domain=all"
    steps: dict[str, Callable[[], object]] = {
        "queue": lambda: browser.get(f"{base}{view}"),
        "card": lambda: browser.get(f"{base}{decided}/{view}"),
        "next": lambda: browser.post(f"{base}next/{view}"),
        "ping": lambda: browser.post(f"{base}{decided}/ping/", {"keep": "1"}),
        "decision": lambda: browser.post(f"{base}{decided}/approve/{view}", {"version": "1"}),
    }
    found = {}
    for name, step in steps.items():
        with CaptureQueriesContext(connection) as captured:
            response = step()
        assert getattr(response, "status_code", 0) in {200, 302}, name
        found[name] = len(captured)
    return found


def inside(task: Task, user: User, topic: int) -> int:
    """A rule in the middle of its topic as this reviewer has it: the first and last of one have a neighbour in another,
    which is a query more at any size.
    """
    rows = in_order(Instruction.objects.filter(task=task, topic=f"topic {topic:04}"), user)
    return rows[rows.count() // 2].number


@pytest.mark.slow
def test_the_same_queries_at_a_hundred_and_at_twenty_thousand(
    task: Task, ana: User, client_of: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Being seen is written down once a minute, three queries more, which on a slow machine falls into one round.
    monkeypatch.setattr(session_store, "SEEN_EVERY", timedelta(days=1))
    browser = client_of(ana)
    grow(task, 1, 100)
    # The first round leaves a decision to undo and a claim to let go, as every later one does.
    queries(browser, inside(task, ana, 1))
    few = queries(browser, inside(task, ana, 2))
    grow(task, 101, 20_000)
    assert Instruction.objects.filter(task=task).count() == 20_000
    many = queries(browser, inside(task, ana, 333))
    assert many == few
    assert few["card"] <= 18
