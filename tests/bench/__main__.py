"""`python -m tests.bench [NAME...] [--quick]`: run benchmarks one after the other and print one JSON object."""

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime

from tests.bench.databases import copied_database, template_database
from tests.bench.machine import Figures, load, machine, say
from tests.bench.processes import in_own_process

NAMES = ("mining", "review", "prompt_api", "dispatch", "two_workers", "trace_import", "evaluation", "pipeline", "audit")
# Takes half an hour, so only when it is named.
ON_REQUEST = ("local_student",)


def _run(name: str, template: str, *, quick: bool) -> Figures:
    """One benchmark in a process and on a database of its own, with the load of the machine around it."""
    say(f"{name}: load {load()[0]}")
    before, started = load(), time.monotonic()
    with copied_database(template) as url:
        found = in_own_process(f"tests.bench.{name}:measure", environment={"DATABASE_URL": url}, quick=quick)
    return {"load_before": before, "load_after": load(), "took_s": round(time.monotonic() - started, 1), **found}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all by default), {', '.join(ON_REQUEST)}"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works; not to be quoted")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in (*NAMES, *ON_REQUEST)]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; choose of {', '.join((*NAMES, *ON_REQUEST))}")
    for name in ("DATABASE_URL", "REDIS_URL"):
        if name not in os.environ:
            parser.error(f"{name} is not set: run ./dev bench, which starts throwaway servers")
    with template_database(os.environ["DATABASE_URL"]) as template:
        found = {name: _run(name, template, quick=arguments.quick) for name in arguments.names or NAMES}
    result = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "quick": arguments.quick, "machine": machine()}
    print(json.dumps(result | {"benches": found}, indent=2))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
