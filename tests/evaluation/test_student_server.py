"""The local student really starts, answers under a schema, reports usage, and stops when told."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion

from evaluation.answers import answer_schema, parse_answer, render_user_message, zero_shot_prompt
from evaluation.student_server import StudentUnavailable, find_weights

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("Entailment", "Contradiction", "NotMentioned")
START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "evaluation.student_server", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_healthy(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        except OSError:
            pass  # nobody listens yet
        finally:
            connection.close()
        time.sleep(0.1)
    pytest.fail("The student was not ready in time.")


@pytest.fixture(scope="module")
def student() -> Iterator[OpenAI]:
    """A client of a running student, which afterwards must end by itself on SIGTERM."""
    port = free_port()
    process = start("--port", str(port))
    try:
        wait_until_healthy(port, process)
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0, timeout=120) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=15)
        assert process.returncode == 0
        assert "Student stopped." in output
    finally:
        process.kill()
        process.communicate()


def ask(student: OpenAI, clause: str) -> ChatCompletion:
    system = zero_shot_prompt(
        "Decide what the clause says about the statement.", LABELS, 'Reply with {"label": "..."}.'
    )
    user = render_user_message(["clause", "statement"], {"clause": clause, "statement": "Copies may be kept."})
    return student.chat.completions.create(
        model="student",
        messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
        temperature=0,
        max_tokens=48,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": answer_schema(LABELS)},
        },
    )


@pytest.mark.slow
def test_it_answers_within_the_labels_and_reuses_the_prompt(student: OpenAI) -> None:
    replies = [ask(student, f"The Recipient shall {verb} all copies.") for verb in ("destroy", "archive")]
    for reply in replies:
        assert parse_answer(reply.choices[0].message.content or "", LABELS).label in LABELS
        assert reply.model == "SmolLM2-135M-Instruct.Q4_1"
        assert reply.usage is not None
        assert reply.usage.prompt_tokens > 60
        assert 0 < reply.usage.completion_tokens <= 48
    assert replies[1].usage is not None
    details = replies[1].usage.prompt_tokens_details
    assert details is not None
    assert (details.cached_tokens or 0) > 50, "the system prompt must not be computed twice"


def test_missing_weights_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(StudentUnavailable, match="no-such-weights is not installed"):
        find_weights("no-such-weights")
    with pytest.raises(StudentUnavailable, match=r"holds no \.gguf file"):
        find_weights("pytest")
    process = start("--port", str(free_port()), "--model", str(tmp_path / "absent.gguf"))
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert errors == f"There is no model file at {tmp_path / 'absent.gguf'}.\n"


def test_a_port_in_use_is_an_error() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        process = start("--port", str(listener.getsockname()[1]))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "The local student did not start on 127.0.0.1:" in errors
