"""Rounds of people at the same moment, each on a connection that stays open: a round costs what its acts cost."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from django.db import connection

from pld_app.errors import Refusal

type Act = Callable[[], object]


def rounds(usual: int) -> int:
    """How many; `PLD_RACE_ROUNDS=5000` for a long run."""
    return int(os.environ.get("PLD_RACE_ROUNDS", usual))


def full(usual: int, whole: int) -> int:
    """A size of a test: `usual` in the suite, `whole` with `PLD_PROOF_FULL=1`."""
    return whole if os.environ.get("PLD_PROOF_FULL") == "1" else usual


class Racers:
    """Threads with a connection each. `race` starts the acts behind one barrier."""

    def __init__(self, count: int) -> None:
        self._pools = [ThreadPoolExecutor(max_workers=1) for _number in range(count)]

    def race(self, *acts: Act) -> list[Refusal | None]:
        """What each act met, in order: None when it was done. Anything but a Refusal is raised here.

        A race must end in words for the person who came second, never in an error page.
        """
        barrier = threading.Barrier(len(acts))
        runs = [pool.submit(_run, barrier, act) for pool, act in zip(self._pools, acts, strict=True)]
        return [run.result(timeout=60) for run in runs]

    def close(self) -> None:
        for pool in self._pools:
            pool.submit(_close).result(timeout=10)
            pool.shutdown()


def _run(barrier: threading.Barrier, act: Act) -> Refusal | None:
    connection.ensure_connection()
    barrier.wait(timeout=60)
    try:
        act()
    except Refusal as refusal:
        return refusal
    return None


def _close() -> None:
    connection.close()  # looked up here: each thread has its own


@contextmanager
def racers(count: int) -> Iterator[Racers]:
    made = Racers(count)
    try:
        yield made
    finally:
        made.close()
