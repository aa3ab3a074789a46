"""What dispatch costs beside the server's own latency. The server is a process of its own, as in life."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pld_app.model_edge import calls_stream
from tests.model_edge.harness import chat, endpoint, never
from tests.workers import stub_process

CALLS, LATENCY_S = 200, 0.2


@pytest.fixture
def far_stub(tmp_path: Path) -> Iterator[str]:
    with stub_process(tmp_path / "calls.jsonl", latency_s=LATENCY_S) as url:
        yield url


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [16, 32])
def test_dispatch_takes_at_most_a_tenth_over_the_ideal(far_stub: str, concurrency: int) -> None:
    requests = [chat(f"t-{n}", schema=True, text="A clause of some length. " * 40) for n in range(CALLS)]
    ideal = math.ceil(CALLS / concurrency) * LATENCY_S
    ratios: list[float] = []
    # The best of five: other work on the machine can only add time. Imports fall into the first.
    while len(ratios) < 5 and min(ratios, default=9.0) > 1.10:
        started = time.monotonic()
        replies = list(
            calls_stream(endpoint(far_stub, concurrency=concurrency, timeout_s=10), requests, should_stop=never)
        )
        ratios.append((time.monotonic() - started) / ideal)
        assert all(reply.ok for reply in replies)
    print(f"concurrency {concurrency}: {', '.join(f'{ratio:.3f}' for ratio in ratios)} of ideal")  # noqa: T201
    assert min(ratios) <= 1.10
