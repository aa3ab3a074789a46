"""Subcommands of `./dev`, which prepares the environment and then runs `python -m pld_app.devstack`."""

import sys
from collections.abc import Callable
from functools import partial

from pld_app.devstack.checks import check_run, format_run
from pld_app.devstack.demo import demo_run, manage_run
from pld_app.devstack.messages import messages_run
from pld_app.devstack.processes import StackError
from pld_app.devstack.testing import bench_run, pytest_run

HELP = """\
usage: ./dev COMMAND

  demo [--reset]  start everything on a sample task and print address and accounts; --reset starts anew
  up              the same stack without seeding the sample task
  test [ARGS]     all tests on throwaway Postgres and Valkey (or DATABASE_URL, REDIS_URL); ARGS go to pytest
  e2e [ARGS]      only the browser journeys
  bench [NAME]    benchmarks, results as JSON
  check           lint, types, templates, layers, migrations
  fmt             rewrite code and templates to the project's format
  messages        bring the translations' catalogues up to date with the source, and compile them
  manage ARGS     manage.py on the demo's data
  help            this text
"""


def _help() -> int:
    print(HELP, end="")
    return 0


def command_for(command: str, arguments: list[str]) -> Callable[[], int] | None:
    """What a command line asks for; None when it makes no sense."""
    simple: dict[str, Callable[[], int]] = {
        "demo": partial(demo_run, seed=True, reset=False),
        "up": partial(demo_run, seed=False, reset=False),
        "check": check_run,
        "fmt": format_run,
        "messages": messages_run,
        "help": _help,
    }
    with_arguments: dict[str, Callable[[], int]] = {
        "test": partial(pytest_run, arguments),
        "e2e": partial(pytest_run, ["-m", "e2e", *arguments]),
        "bench": partial(bench_run, arguments),
        "manage": partial(manage_run, arguments),
    }
    if command == "demo" and arguments == ["--reset"]:
        return partial(demo_run, seed=True, reset=True)
    return with_arguments.get(command) or (None if arguments else simple.get(command))


def main() -> int:
    action = command_for(sys.argv[1] if sys.argv[1:] else "help", sys.argv[2:])
    if action is None:
        print(HELP, end="", file=sys.stderr)
        return 2
    try:
        return action()
    except (StackError, ValueError) as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
