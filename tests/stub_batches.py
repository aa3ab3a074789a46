"""OpenAI's files and batches, as a stub: what they take, keep and give back, without a model.

A batch is in progress for `looks` and then ends as `ending` says: "completed", "failed" (nothing was asked), "expired"
or "cancelled" (half was asked). Each line is answered by the server's behaviour.
"""

import email
import email.policy
import itertools
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
type Answer = Callable[[str, Json], tuple[int, Json]]
_PREFIX = "/v1"


@dataclass
class StubBatches:
    """What one server holds. `answer(path, body)` gives status and body for one line of a batch."""

    answer: Answer
    ending: str = "completed"
    looks: int = 1
    refuse_create: str = ""
    page: int = 100
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, Json] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def created(self) -> int:
        return len(self.batches)

    def handles(self, path: str) -> bool:
        return path.startswith((f"{_PREFIX}/files", f"{_PREFIX}/batches"))

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Json | bytes]:
        """Status and body; a body of bytes is a file's content."""
        with self._lock:
            self.asked.append((method, path))
            url = urlsplit(path)
            parts = url.path.removeprefix(_PREFIX).strip("/").split("/")
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            kind, rest = parts[0], parts[1:]
            if kind == "files":
                return self._files(method, rest, query, headers, body)
            return self._batches(method, rest, query, body)

    def _files(
        self, method: str, rest: list[str], query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Json | bytes]:
        if method == "POST":
            form = _form(headers, body)
            if form["purpose"] != ("", b"batch"):
                return _error(400, "purpose must be batch")
            number = self._keep(*form["file"])
            return 200, self._file(number)
        if not rest:
            return 200, {
                "object": "list",
                "data": [self._file(name) for name in reversed(self.files)],
                "has_more": False,
            }
        if rest[0] not in self.files:
            return _error(404, "No such File object")
        if method == "DELETE":
            del self.files[rest[0]]
            return 200, {"id": rest[0], "object": "file", "deleted": True}
        return 200, self.files[rest[0]][1] if rest[1:] == ["content"] else self._file(rest[0])

    def _keep(self, name: str, content: bytes) -> str:
        number = f"file-{next(self._numbers)}"
        self.files[number] = (name, content)
        return number

    def _file(self, number: str) -> Json:
        name, content = self.files[number]
        return {"id": number, "object": "file", "bytes": len(content), "filename": name, "purpose": "batch"}

    def _batches(self, method: str, rest: list[str], query: Mapping[str, str], body: bytes) -> tuple[int, Json]:
        if not rest and method == "POST":
            return self._create(json.loads(body))
        if not rest:
            return 200, self._list(query)
        batch = self.batches.get(rest[0])
        if batch is None:
            return _error(404, "No such batch")
        if rest[1:] == ["cancel"]:
            if batch["status"] in {"completed", "failed", "expired", "cancelled"}:
                return _error(400, "It has ended")
            batch["status"], batch["_ending"] = "cancelling", "cancelled"
        elif method == "GET":
            self._move(batch)
        return 200, _shown(batch)

    def _list(self, query: Mapping[str, str]) -> Json:
        newest_first = list(reversed(self.batches))
        start = newest_first.index(query["after"]) + 1 if "after" in query else 0
        size = min(self.page, int(query.get("limit", "20")))
        some = newest_first[start : start + size]
        more = start + size < len(newest_first)
        return {"object": "list", "data": [_shown(self.batches[name]) for name in some], "has_more": more}

    def _create(self, asked: Json) -> tuple[int, Json]:
        if self.refuse_create:
            return _error(400, self.refuse_create)
        if asked["input_file_id"] not in self.files or asked["completion_window"] != "24h":
            return _error(400, "Invalid input file or window")
        lines = self.files[asked["input_file_id"]][1].splitlines()
        number = f"batch_{next(self._numbers)}"
        self.batches[number] = {
            "id": number,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "errors": None,
            "input_file_id": asked["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "metadata": asked.get("metadata"),
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "_looks": 0,
            "_ending": self.ending,
        }
        return 200, _shown(self.batches[number])

    def _move(self, batch: Json) -> None:
        batch["_looks"] += 1
        if batch["status"] in {"completed", "failed", "expired", "cancelled"}:
            return
        if batch["status"] != "cancelling" and batch["_looks"] <= self.looks:
            batch["status"] = "in_progress"
            return
        self._end(batch)

    def _end(self, batch: Json) -> None:
        batch["status"] = ending = batch["_ending"]
        if ending == "failed":
            fault = {"code": "invalid_json_line", "message": "Line 1 is not valid.", "line": 1, "param": None}
            batch["errors"] = {"object": "list", "data": [fault]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]][1].splitlines()]
        asked = lines if ending == "completed" else lines[: len(lines) // 2]
        good: list[Json] = []
        bad: list[Json] = []
        for line in asked:
            status, body = self.answer(line["url"], line["body"])
            response = {"status_code": status, "request_id": f"req_{line['custom_id'][:8]}", "body": body}
            row = {"id": f"batch_req_{line['custom_id'][:8]}", "custom_id": line["custom_id"], "response": response}
            (good if status == 200 else bad).append(row | {"error": None})
        code = "batch_expired" if ending == "expired" else "batch_cancelled"
        fault = {"code": code, "message": "This request could not be executed before the batch ended."}
        unasked = {"id": "batch_req", "response": None, "error": fault}
        bad += [unasked | {"custom_id": line["custom_id"]} for line in lines[len(asked) :]]
        # Replies come in any order.
        batch["output_file_id"] = self._keep("output.jsonl", _jsonl(good[::-1])) if good else None
        batch["error_file_id"] = self._keep("errors.jsonl", _jsonl(bad)) if bad else None
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}


def _jsonl(rows: list[Json]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _shown(batch: Json) -> Json:
    return {name: value for name, value in batch.items() if not name.startswith("_")}


def _error(status: int, message: str) -> tuple[int, Json]:
    return status, {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def _form(headers: Mapping[str, str], body: bytes) -> dict[str, tuple[str, bytes]]:
    """The parts of a multipart form: name to file name and content."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    found = {}
    for part in message.iter_parts():
        name = str(part.get_param("name", header="content-disposition"))
        content = part.get_payload(decode=True)
        found[name] = (part.get_filename() or "", content if isinstance(content, bytes) else b"")
    return found
