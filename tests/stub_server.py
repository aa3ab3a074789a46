"""A model endpoint that does as told: a real HTTP/1.1 server on loopback for tests, kill -9 trials and benches.

In a test: `with stub_server("ok", latency_s=0.2) as stub:` serves from a thread. As a process of its own:
`python -m tests.stub_server --port 9001 --log calls.jsonl --latency 0.2 [--behaviour ok]`.

A behaviour is a name from BEHAVIOURS (`"429:2"` and the like take an argument after the colon), a list of those (one
per request in order of arrival, the last one for the rest), or a callable from `StubRequest` to a name or a `Plan`.
"""

import argparse
import asyncio
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from tests.stub_batches import StubBatches

Json = dict[str, Any]  # parsed JSON from the wire; tests look into it freely
MIB = 1024 * 1024


@dataclass(frozen=True)
class StubRequest:
    """One request as received. `number` counts from 0; `at` is seconds on the monotonic clock."""

    number: int
    at: float
    path: str
    headers: Mapping[str, str]
    body: Json

    @property
    def messages(self) -> list[Json]:
        """The messages of a chat question in either API."""
        asked = self.body.get("messages", self.body.get("input", []))
        return [one for one in asked if isinstance(one, dict)] if isinstance(asked, list) else []

    @property
    def schema(self) -> Json | None:
        """The JSON Schema the reply is held to, in either API."""
        if self.path.endswith("/responses"):
            found: Json | None = self.body.get("text", {}).get("format", {}).get("schema")
        else:
            found = (self.body.get("response_format") or {}).get("json_schema", {}).get("schema")
        return found

    @property
    def text(self) -> str:
        """All message contents (or inputs) joined by line breaks."""
        if self.messages:
            return "\n".join(str(message.get("content", "")) for message in self.messages)
        inputs = self.body.get("input", [])
        return inputs if isinstance(inputs, str) else "\n".join(map(str, inputs))


@dataclass(frozen=True)
class Plan:
    """What to answer: `body` (a dict is sent as JSON), and how (`mode`).

    send: all at once. hang: never. trickle: a byte each 0.05 s. cut: half, then close. reset: close without a byte.
    huge: `size` bytes of blanks in a body without stated length.
    """

    body: Json | bytes | str = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    mode: Literal["send", "hang", "trickle", "cut", "reset", "huge"] = "send"
    size: int = 0

    @property
    def payload(self) -> bytes:
        if isinstance(self.body, dict):
            return json.dumps(self.body).encode()
        return self.body.encode() if isinstance(self.body, str) else self.body


Behaviour = str | Sequence[str] | Callable[[StubRequest], "str | Plan"]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def minimal_value(schema: Json, *, seed: str, root: Json | None = None, name: str = "") -> Any:
    """A small value that satisfies the schema; the same seed gives the same value, and enums vary with the seed."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: Any = root
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return minimal_value(target, seed=seed, root=root, name=name)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][_digest(seed + name) % len(schema["enum"])]
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return minimal_value(schema[union][0], seed=seed, root=root, name=name)
    return _typed_value(schema, seed=seed, root=root, name=name)


def _typed_value(schema: Json, *, seed: str, root: Json, name: str) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        fields: Json = schema.get("properties", {})
        wanted = schema.get("required", list(fields))
        return {key: minimal_value(fields.get(key, {}), seed=seed, root=root, name=key) for key in wanted}
    if kind == "array":
        count = max(int(schema.get("minItems", 1)), min(1, int(schema.get("maxItems", 1))))
        items = schema.get("items", {"type": "string"})
        return [minimal_value(items, seed=f"{seed}{i}", root=root, name=name) for i in range(count)]
    if kind == "string":
        text = f"Stub {name or 'text'} {_digest(seed + name):x}"
        return text.ljust(int(schema.get("minLength", 0)), ".")[: int(schema.get("maxLength", len(text) + 10_000))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    return {"boolean": True}.get(kind)


def embedding(text: str, dimensions: int = 32) -> list[float]:
    """A unit vector made of the text's words: same text, same vector; shared words bring texts closer."""
    total = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.shake_256(word.encode()).digest(dimensions)
        total = [sum_ + byte / 127.5 - 1.0 for sum_, byte in zip(total, digest, strict=True)]
    norm = math.sqrt(sum(x * x for x in total)) or 1.0
    return [x / norm for x in total]


def completion(content: str | None, *, finish: str = "stop", **message: object) -> Json:
    """A chat completion body around the content."""
    answer = {"role": "assistant", "content": content, **message}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    choice = {"index": 0, "message": answer, "finish_reason": finish}
    return {"id": "stub", "object": "chat.completion", "model": "stub-1", "choices": [choice], "usage": usage}


def response(content: str, *, status: str = "completed", reason: str | None = None, **part: object) -> Json:
    """A body of the Responses API around the content; reasoning comes first, as from the models that think."""
    parts = [{"type": "output_text", "text": content, "annotations": []} | part]
    output = [
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "message", "role": "assistant", "status": status, "content": parts},
    ]
    return {
        "id": "stub",
        "object": "response",
        "model": "stub-1",
        "status": status,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
    }


def _marks(request: StubRequest) -> Json:
    """The item mark of the question, where it has one: a good reply repeats it."""
    with suppress(ValueError, IndexError):
        data = json.loads(request.messages[-1]["content"])
        if isinstance(data, dict) and "item" in data and "item" in (request.schema or {}).get("properties", {}):
            return {"item": data["item"]}
    return {}


def _other_item(request: StubRequest) -> Plan:
    """A reply that fits its schema and answers another question: what a server that mixes up its replies sends."""
    value = minimal_value(request.schema or {}, seed="another") | {"item": "000000000000"}
    return Plan(completion(json.dumps(value)))


def good_reply(request: StubRequest) -> Plan:
    """A valid answer: JSON for the request's schema, words without one, vectors for inputs."""
    if request.path.endswith("/embeddings"):
        raw = request.body["input"]
        inputs = [raw] if isinstance(raw, str) else raw
        data = [{"object": "embedding", "index": i, "embedding": embedding(t)} for i, t in enumerate(inputs)]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        return Plan({"object": "list", "data": data, "model": "stub-1", "usage": usage})
    asked = request.body.get("response_format") or request.body.get("text")
    if request.schema is not None:
        content = json.dumps(minimal_value(request.schema, seed=request.text) | _marks(request))
    else:
        content = "{}" if asked else f"Stub answer {_digest(request.text):x}"
    return Plan(response(content) if request.path.endswith("/responses") else completion(content))


def _error(status: int, message: str, *, code: str | None = None, headers: Mapping[str, str] | None = None) -> Plan:
    body = {"error": {"message": message, "type": code or "error", "code": code}}
    return Plan(body, status=status, headers=headers or {})


def _retry_after(argument: str) -> dict[str, str]:
    return {"Retry-After": argument} if argument else {}


_CHAT_PAGE = "<!DOCTYPE html><html><body>Sign in to continue</body></html>"
BEHAVIOURS: dict[str, Callable[[StubRequest, str], Plan]] = {
    "ok": lambda request, _: good_reply(request),
    "slow": lambda request, seconds: Plan(good_reply(request).body, delay_s=float(seconds or 1)),
    "429": lambda _, arg: _error(429, "slow down", code="rate_limit_exceeded", headers=_retry_after(arg)),
    "quota": lambda *_: _error(429, "You exceeded your current quota", code="insufficient_quota"),
    "500": lambda *_: _error(500, "internal"),
    "503": lambda _, arg: _error(503, "overloaded", headers=_retry_after(arg)),
    "400": lambda *_: _error(400, "bad request"),
    "401": lambda request, _: _error(401, f"Incorrect key: {request.headers.get('authorization', '')}"),
    "404": lambda *_: _error(404, "no such model"),
    "hang": lambda *_: Plan(mode="hang"),
    "trickle": lambda request, _: Plan(good_reply(request).body, mode="trickle"),
    "cut": lambda request, _: Plan(good_reply(request).body, mode="cut"),
    "reset": lambda *_: Plan(mode="reset"),
    "html": lambda *_: Plan(_CHAT_PAGE, headers={"Content-Type": "text/html"}),
    "garbage": lambda *_: Plan('{"choices": [{"mess'),
    "not-utf8": lambda *_: Plan(b'{"choices": "\xff\xfe"}'),
    "wrong-shape": lambda *_: Plan({"answer": "42"}),
    "wrong-schema": lambda *_: Plan(completion('{"rule": "If x, then y.", "why": "because"}')),
    "other-item": lambda request, _: _other_item(request),
    "error-200": lambda *_: Plan({"error": {"message": "model is loading"}}),
    "no-choices": lambda *_: Plan(completion("x") | {"choices": []}),
    "empty": lambda *_: Plan(completion("")),
    "null": lambda *_: Plan(completion(None)),
    "not-json": lambda *_: Plan(completion("Sure! Here is the JSON you asked for.")),
    "fenced": lambda *_: Plan(completion('```json\n{"label": "A"}\n```')),
    "duplicate-keys": lambda *_: Plan(completion('{"label": "A", "label": "B"}')),
    "nan": lambda *_: Plan(completion('{"score": NaN}')),
    "deep": lambda *_: Plan(completion('{"a":' * 200_000 + "1" + "}" * 200_000)),
    "nul": lambda *_: Plan(completion("a\x00b")),
    "surrogate": lambda *_: Plan(completion("a\ud800b")),
    "length": lambda *_: Plan(completion('{"label": ', finish="length")),
    "refusal": lambda *_: Plan(completion(None, refusal="I cannot help with that.")),
    "filtered": lambda *_: Plan(completion("", finish="content_filter")),
    "tool": lambda *_: Plan(completion(None, finish="tool_calls")),
    "huge": lambda _, mib: Plan(mode="huge", size=int(mib or 200) * MIB),
    "huge-error": lambda _, mib: Plan(mode="huge", size=int(mib or 200) * MIB, status=500),
    "huge-stated": lambda *_: Plan(b" " * 1024, headers={"Content-Length": str(200 * MIB)}, mode="cut"),
    "gzip": lambda *_: Plan(b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}),
    "redirect": lambda _, url: Plan(status=307, headers={"Location": url}),
    "few-vectors": lambda request, _: Plan(dict(_payload(request), data=_payload(request)["data"][1:])),
    "odd-vectors": lambda request, _: Plan(_with_vector(request, [1.0])),
    "nan-vectors": lambda request, _: Plan(_with_vector(request, [math.nan] * 32)),
}


def _payload(request: StubRequest) -> Json:
    body = good_reply(request).body
    assert isinstance(body, dict)
    return body


def _with_vector(request: StubRequest, vector: list[float]) -> Json:
    body = _payload(request)
    body["data"][0]["embedding"] = vector
    return body


def plan_for(behaviour: Behaviour, request: StubRequest) -> Plan:
    if callable(behaviour):
        chosen = behaviour(request)
        return chosen if isinstance(chosen, Plan) else plan_for(chosen, request)
    if not isinstance(behaviour, str):
        return plan_for(behaviour[min(request.number, len(behaviour) - 1)], request)
    name, _, argument = behaviour.partition(":")
    return BEHAVIOURS[name](request, argument)


class StubServer:
    """The server and what it saw. Attributes may be read from any thread while it runs."""

    def __init__(self, behaviour: Behaviour = "ok", *, latency_s: float = 0.0, log: IO[str] | None = None) -> None:
        self.behaviour = behaviour
        self.latency_s = latency_s
        self.requests: list[StubRequest] = []
        self.connections = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.completed = 0
        self.port = 0
        self.batches = StubBatches(self._answer_line)
        self._log = log

    @property
    def url(self) -> str:
        """The base URL to give an endpoint."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def listen(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, "127.0.0.1", port, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            async for method, path, headers, body in _http_requests(reader):
                if self.batches.handles(path):
                    await self._handle_batches(method, path, headers, body, writer)
                elif not await self._handle(path, headers, body, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer_line(self, path: str, body: Json) -> tuple[int, Json]:
        """One question of a batch, answered as if it had been asked directly; it counts among the requests."""
        request = StubRequest(len(self.requests), time.monotonic(), path, {}, body)
        self.requests.append(request)
        plan = plan_for(self.behaviour, request)
        return plan.status, plan.body if isinstance(plan.body, dict) else {}

    async def _handle_batches(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        self._log_line({"time": time.time(), "path": path, "method": method, "body": {}})
        status, found = self.batches.respond(method, path, headers, body)
        await asyncio.sleep(self.latency_s)
        payload = found if isinstance(found, bytes) else json.dumps(found).encode()
        head = f"HTTP/1.1 {status} Stub\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        await writer.drain()

    async def _handle(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        request = StubRequest(len(self.requests), time.monotonic(), path, headers, json.loads(body or b"{}"))
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self._write_log(request)
        try:
            plan = plan_for(self.behaviour, request)
            await asyncio.sleep(self.latency_s + plan.delay_s)
            keep = await _answer(plan, reader, writer)
        finally:
            self.in_flight -= 1
        self.completed += 1
        return keep

    def _write_log(self, request: StubRequest) -> None:
        line = {"number": request.number, "time": time.time(), "path": request.path, "body": request.body}
        self._log_line(line | {"in_flight": self.in_flight})

    def _log_line(self, line: Json) -> None:
        if self._log is not None:
            self._log.write(json.dumps(line) + "\n")
            self._log.flush()


async def _http_requests(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, str, Mapping[str, str], bytes]]:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        start, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _version = start.split(" ")
        yield method, path, headers, body


async def _answer(plan: Plan, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send the plan; True if the connection may serve another request."""
    if plan.mode == "reset":
        return False
    if plan.mode == "hang":
        await reader.read(1)  # returns when the client gives up
        return False
    payload = plan.payload
    headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **plan.headers}
    if plan.mode == "huge":
        del headers["Content-Length"]
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {plan.status} Stub", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    writer.write("\r\n".join(lines).encode())
    if plan.mode == "send":
        writer.write(payload)
        await writer.drain()
        return True
    await _send_badly(plan, payload, writer)
    return False


async def _send_badly(plan: Plan, payload: bytes, writer: asyncio.StreamWriter) -> None:
    if plan.mode == "cut":
        writer.write(payload[: len(payload) // 2])
        await writer.drain()
    elif plan.mode == "trickle":
        for byte in payload:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)
    else:
        block = b" " * MIB
        for _ in range(plan.size // MIB):
            writer.write(block)
            await writer.drain()


@contextmanager
def stub_server(behaviour: Behaviour = "ok", *, latency_s: float = 0.0) -> Iterator[StubServer]:
    """Serve on a free loopback port from a thread until the block ends."""
    stub = StubServer(behaviour, latency_s=latency_s)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(stub.listen())
    thread = threading.Thread(target=loop.run_forever, name="stub-server", daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(_cancel_others())
        loop.close()


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(arguments: argparse.Namespace) -> None:
    log = Path(arguments.log).open("a", encoding="utf-8") if arguments.log else None  # noqa: ASYNC230, SIM115
    stub = StubServer(arguments.behaviour, latency_s=arguments.latency, log=log)
    server = await stub.listen(arguments.port)
    print(stub.url, flush=True)  # noqa: T201
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted model endpoint on loopback; prints its base URL.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", default="")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--behaviour", default="ok", help=", ".join(BEHAVIOURS))
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
