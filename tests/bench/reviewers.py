"""Twenty reviewers at work at once on one task: each reads a card, thinks, decides, and is led to the next one."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPResponse

from tests.bench.machine import Figures
from tests.bench.review import Browser, figures_of

KINDS = ("approve", "reject", "edit", "defer", "approve", "reject")
PING_EVERY_S = 10.0


@dataclass
class Shift:
    """One reviewer's work: seconds of every decision, of warnings before one, of the card after it; and the answers."""

    username: str
    base: str
    port: int
    think_s: float
    until: float
    decisions: list[float] = field(default_factory=list)
    warned: list[float] = field(default_factory=list)
    cards: list[float] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    decided: Counter[str] = field(default_factory=Counter)
    error: str = ""

    def work(self, password: str) -> None:
        try:
            self._work(password)
        except Exception as error:  # noqa: BLE001  # the measurement reports whatever broke
            self.error = f"{type(error).__name__}: {error}"

    def _work(self, password: str) -> None:
        choose = random.Random(self.username)
        browser = Browser(self.port)
        browser.sign_in(self.username, password)
        card = browser.post(f"{self.base}next/?tab=open&domain=all", {}).headers["Location"]
        browser.get(card)
        pinged = time.monotonic()
        while time.monotonic() < self.until:
            # Think times spread evenly around their mean, so that twenty people do not fall into step.
            time.sleep(self.think_s * choose.uniform(0.5, 1.5))
            if time.monotonic() - pinged > PING_EVERY_S:
                pinged = time.monotonic()
                self._timed(self.pings, partial(browser.post, card.partition("?")[0] + "ping/", {"keep": "1"}))
            card = self._decide(browser, card, choose.choice(KINDS))
            self._timed(self.cards, partial(browser.get, card))

    def _decide(self, browser: Browser, card: str, kind: str) -> str:
        """Send one decision on an untouched candidate; the address of the next card."""
        path, _, query = card.partition("?")
        text = f"If copies are kept by {self.username}, then label Open. {time.monotonic_ns()}"
        sent = {"version": "1", "base": "1", "reason": "unclear", "note": "Measured.", "text": text}
        decided = browser.decide(f"{path}{kind}/?{query}", sent)
        response = decided.response
        self.decisions.append(decided.took_s)
        if decided.warned_s is not None:
            self.warned.append(decided.warned_s)
        self.answers[response.status] += 1
        if response.status != 302:
            raise RuntimeError(f"{kind} answered {response.status}")
        self.decided[kind] += 1
        return str(response.headers["Location"])

    def _timed(self, into: list[float], act: Callable[[], HTTPResponse]) -> None:
        started = time.perf_counter()
        status = act().status
        into.append(time.perf_counter() - started)
        self.answers[status] += 1


def at_work(port: int, base: str, usernames: list[str], *, password: str, think_s: float, seconds: float) -> Figures:
    """Let everybody work for `seconds`; figures of all their requests, and what they believe they decided."""
    until = time.monotonic() + seconds
    shifts = [Shift(name, base, port, think_s, until) for name in usernames]
    threads = [threading.Thread(target=shift.work, args=(password,)) for shift in shifts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    errors = [shift.error for shift in shifts if shift.error]
    assert not errors, errors
    return {
        "reviewers": len(shifts),
        "think_s": think_s,
        "seconds": seconds,
        "decision": figures_of([one for shift in shifts for one in shift.decisions]),
        "warned": figures_of([one for shift in shifts for one in shift.warned] or [0.0]),
        "next_card": figures_of([one for shift in shifts for one in shift.cards]),
        "ping": figures_of([one for shift in shifts for one in shift.pings] or [0.0]),
        "answers": dict(sum((shift.answers for shift in shifts), Counter[int]())),
        "said_decided": dict(sum((shift.decided for shift in shifts), Counter[str]())),
    }


def on_record(task_id: int, usernames: list[str]) -> Figures:
    """What the database and the audit log hold of the same work: nothing lost, nothing decided twice."""
    from django.db.models import Count

    from pld_app.models import AuditEvent
    from rules.models import Decision

    decisions = Decision.objects.filter(instruction__task=task_id, actor__username__in=usernames)
    actions = [f"instruction.{one}" for one in ("approved", "rejected", "edited", "deferred")]
    events = AuditEvent.objects.filter(object_type="instruction", actor__username__in=usernames, action__in=actions)
    twice = decisions.values("instruction").annotate(n=Count("pk")).filter(n__gt=1).count()
    return {
        "decisions": dict(decisions.order_by().values_list("kind").annotate(Count("pk"))),
        "events": events.count(),
        "decided_twice": twice,
    }
