"""The student's request for its prompt beside a view of the same server that does nothing."""

import json
import subprocess
import sys
from dataclasses import dataclass, field

from tests.bench.machine import Figures, percentile, say
from tests.bench.processes import web_server

# As many as the demo's web server has threads, and one alone, which waits for nobody.
TOGETHER, ALONE = 8, 1
# About the paper's prompt for Contract-NLI: 17 instructions, 4,630 tokens.
INSTRUCTIONS, WORDS_EACH = 17, 180


@dataclass
class Target:
    """A request, the status it must be answered with, and all that was measured of it."""

    head: str
    status: int
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def p_ms(self, percent: float) -> float:
        return percentile(self.latencies, percent) * 1000


def measure(*, quick: bool) -> Figures:
    """Both loads, each in rounds that take the targets in turn, so that other work on the machine meets all alike."""
    path, token = _published()
    rounds, together, alone = (1, 100, 50) if quick else (5, 1_000, 200)
    with web_server() as port:
        etag, prompt_bytes = _first_answer(port, path, token)
        say(f"  {rounds} rounds of {together} requests on {TOGETHER} connections and {alone} on one")
        return {
            "instructions": INSTRUCTIONS,
            "answer_bytes": prompt_bytes,
            "client": "tests.bench.load_client",
            f"connections_{TOGETHER}": _compared(
                port, _targets(path, token, etag), TOGETHER, rounds=rounds, requests=together
            ),
            f"connections_{ALONE}": _compared(port, _targets(path, token, etag), ALONE, rounds=rounds, requests=alone),
        }


def _published() -> tuple[str, str]:
    """A release in production, by the ways people take; the path and a token."""
    from pld_app.models import Domain, Role
    from rules.models import ChannelName
    from rules.services.tokens import token_create
    from tests.factories import approve_directly, make_instruction, make_task, make_user
    from tests.publishing import steps

    task = make_task()
    composer = make_user("rita", Role.REVIEWER, Domain.LEGAL)
    signers = make_user("sam", Role.SIGNATORY), make_user("sue", Role.SIGNATORY)
    for number in range(INSTRUCTIONS):
        text = f"If clause {number} holds{' and its terms allow it' * (WORDS_EACH // 5)}, then label Compliant."
        approve_directly(make_instruction(task, text), composer)
    release = steps.again(task, composer, *signers)
    steps.publish(release, signers[0])
    steps.publish(release, signers[0], ChannelName.PRODUCTION)
    _row, secret = token_create(task=task, name="student", actor=make_user("ada", Role.ADMIN))
    return f"/api/v1/tasks/{task.slug}/prompt", secret


def _head(path: str, *headers: str) -> str:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""])


def _targets(path: str, token: str, etag: str) -> dict[str, Target]:
    bearer = f"Authorization: Bearer {token}"
    return {
        "bare": Target(_head("/bare/"), 200),
        "prompt_200": Target(_head(path, bearer), 200),
        "prompt_304": Target(_head(path, bearer, f"If-None-Match: {etag}"), 304),
    }


def _first_answer(port: int, path: str, token: str) -> tuple[str, int]:
    """ETag and length of the answer."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    body = response.read()
    assert response.status == 200, body
    connection.close()
    return response.headers["ETag"], len(body)


def _compared(port: int, targets: dict[str, Target], connections: int, *, rounds: int, requests: int) -> Figures:
    for one in targets.values():
        _load(port, one, connections, 4 * TOGETHER)
        one.latencies, one.seconds = [], 0.0  # that was the warm-up
    for _ in range(rounds):
        for one in targets.values():
            _load(port, one, connections, requests)
    bare = targets["bare"]
    return {
        name: {
            "n": len(one.latencies),
            "p50_ms": round(one.p_ms(50), 2),
            "p99_ms": round(one.p_ms(99), 2),
            "requests_per_s": round(one.per_second, 1),
            "p50_over_bare_ratio": round(one.p_ms(50) / bare.p_ms(50), 2),
            "bare_rate_over_this_ratio": round(bare.per_second / one.per_second, 2),
        }
        for name, one in targets.items()
    }


def _load(port: int, target: Target, connections: int, requests: int) -> None:
    """Put load on the server from a process of its own and add what it measured to the target."""
    said = {
        "port": port,
        "head": target.head,
        "status": target.status,
        "connections": connections,
        "requests": requests,
    }
    command = [sys.executable, "-m", "tests.bench.load_client", json.dumps(said)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    target.seconds += found["seconds"]
    target.latencies += found["latencies"]
