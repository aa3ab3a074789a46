"""What a reviewer waits for with thousands of candidates: the queue, the card and a decision, over the real server."""

import http.client
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from tests.bench.machine import Figures, percentile, say
from tests.bench.processes import web_server

WARM_UP = 30
IDLE_S = 0.5
KINDS = ("approve", "reject", "edit", "defer")


class Browser:
    """One connection kept alive, signed in as one account; its cookies stay those of the sign-in."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._cookies: dict[str, str] = {}
        self._body = b""
        self._used = 0.0

    def sign_in(self, username: str, password: str) -> None:
        self._keep_cookies(self._answer("GET", "/sign-in/"))
        sent = {"username": username, "password": password}
        response = self.post("/sign-in/", sent)
        assert response.status == 302, response.status
        self._keep_cookies(response)

    def get(self, path: str) -> http.client.HTTPResponse:
        return self._answer("GET", path)

    def post(self, path: str, sent: dict[str, str]) -> http.client.HTTPResponse:
        """Send a form; a redirect is not followed."""
        form = sent | {"csrfmiddlewaretoken": self._cookies["csrftoken"]}
        return self._answer("POST", path, urlencode(form).encode())

    def decide(self, path: str, sent: dict[str, str]) -> "Decided":
        """Send a decision; an edit of weighty words comes back once with its warnings and is sent again as read."""
        response, took_s = self._post_timed(path, sent)
        found = re.search(rb'name="seen" value="(\w+)"', self._body) if response.status == 422 else None
        if not found:
            return Decided(response, took_s, None)
        again, took_again_s = self._post_timed(path, sent | {"seen": found.group(1).decode()})
        return Decided(again, took_again_s, took_s)

    def _post_timed(self, path: str, sent: dict[str, str]) -> tuple[http.client.HTTPResponse, float]:
        started = time.perf_counter()
        response = self.post(path, sent)
        return response, time.perf_counter() - started

    def _answer(self, method: str, path: str, body: bytes | None = None) -> http.client.HTTPResponse:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        # The server lets go of a connection nobody uses, and a form must not be sent into a closed one.
        if time.monotonic() - self._used > IDLE_S:
            self._connection.close()
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        self._body = response.read()
        self._used = time.monotonic()
        return response

    def _keep_cookies(self, response: http.client.HTTPResponse) -> None:
        for line in response.headers.get_all("Set-Cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self._cookies[name] = value


@dataclass(frozen=True)
class Decided:
    """The answer to a decision and its seconds; `warned_s` of the answer with warnings before it, if there was one."""

    response: http.client.HTTPResponse
    took_s: float
    warned_s: float | None


def measure(*, quick: bool) -> Figures:
    """Milliseconds of one reviewer and of twenty at once, and queries a request, over `candidates` proposed ones."""
    from pld_app.models import Domain, Role
    from tests.bench.candidates import make_candidates
    from tests.bench.reviewers import at_work, on_record
    from tests.factories import PASSWORD, make_user

    count, n, seconds = (120, 30, 6.0) if quick else (20_000, 400, 120.0)
    say(f"  writing {count} candidates with evidence")
    task = make_candidates(count)
    make_user("rita", Role.REVIEWER, Domain.LEGAL)
    people = [f"r{number:02d}" for number in range(4 if quick else 20)]
    for name in people:
        make_user(name, Role.REVIEWER, Domain.LEGAL)
    found: Figures = {"candidates": count, "queries": _queries(f"/tasks/{task.slug}/review/")}
    say(f"  {n} requests of each kind")
    with web_server() as port:
        browser = Browser(port)
        browser.sign_in("rita", PASSWORD)
        found |= _timed(browser, f"/tasks/{task.slug}/review/", count=count, n=n)
        say(f"  {len(people)} reviewers for {seconds:.0f} s")
        base = f"/tasks/{task.slug}/review/"
        found["many"] = at_work(port, base, people, password=PASSWORD, think_s=2.0, seconds=seconds)
    return found | {"on_record": on_record(task.pk, people)}


def _timed(browser: Browser, base: str, *, count: int, n: int) -> Figures:
    choose = random.Random(1)
    pages = [f"{base}?page={choose.randint(1, -(-count // 25))}" for _ in range(WARM_UP + n)]
    cards = [f"{base}{choose.randint(1, count)}/?tab=open&domain=legal" for _ in range(WARM_UP + n)]
    # Number 1 was decided when the queries were counted.
    numbers = choose.sample(range(2, count + 1), n)
    return {
        "queue": figures_of(_times(lambda path: _got(browser, path), pages)[WARM_UP:]),
        "card": figures_of(_times(lambda path: _got(browser, path), cards)[WARM_UP:]),
        "decision": _decisions(browser, base, numbers),
    }


def _decisions(browser: Browser, base: str, numbers: Sequence[int]) -> Figures:
    """Decide each instruction once, the kinds in turn; p50 and p95 of all, and p95 of each kind."""
    times: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "warned")}
    for place, number in enumerate(numbers):
        kind = KINDS[place % len(KINDS)]
        path = f"{base}{number}/{kind}/?tab=open&domain=legal"
        decided = browser.decide(path, _form(version="1"))
        assert decided.response.status == 302, (path, decided.response.status)
        times[kind].append(decided.took_s)
        if decided.warned_s is not None:
            times["warned"].append(decided.warned_s)
    every = [one for kind in KINDS for one in times[kind]]
    return figures_of(every) | {f"{kind}_p95_ms": _ms(percentile(of, 95)) for kind, of in times.items() if of}


def _got(browser: Browser, path: str) -> None:
    status = browser.get(path).status
    assert status == 200, (path, status)


def _form(**fields: str) -> dict[str, str]:
    """Every field any of the four decisions reads."""
    return {"reason": "unclear", "note": "Measured.", "text": "If copies are kept, then label Open.", **fields}


def _times(act: Callable[[str], None], paths: Sequence[str]) -> list[float]:
    """Seconds of each request, from its first byte sent to its last received."""
    return list(_each_time(act, paths))


def _each_time(act: Callable[[str], None], paths: Sequence[str]) -> Iterator[float]:
    for path in paths:
        started = time.perf_counter()
        act(path)
        yield time.perf_counter() - started


def figures_of(times: Sequence[float]) -> Figures:
    return {"n": len(times), "p50_ms": _ms(percentile(times, 50)), "p95_ms": _ms(percentile(times, 95))}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _queries(base: str) -> Figures:
    """Queries of each request, counted in this process with a signed-in session; decides instruction 1."""
    from django.db import connection
    from django.http.response import HttpResponseBase
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from pld_app.models import User

    client = Client(SERVER_NAME="127.0.0.1")
    client.force_login(User.objects.get(username="rita"))
    acts: dict[str, Callable[[], HttpResponseBase]] = {
        "queue": lambda: client.get(base),
        "card": lambda: client.get(f"{base}1/"),
        "decision": lambda: client.post(f"{base}1/approve/", _form(version="1")),
    }
    found: Figures = {}
    for name, act in acts.items():
        with CaptureQueriesContext(connection) as captured:
            response = act()
        assert response.status_code in {200, 302}, (name, response.status_code)
        found[name] = len(captured)
    return found
