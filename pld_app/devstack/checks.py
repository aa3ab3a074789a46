"""`./dev check` and `./dev fmt`: every static check of the project, each shown with its time."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pld_app.devstack import paths
from pld_app.devstack.processes import say
from pld_app.devstack.stack import throwaway_stack

Command = Sequence[str]
DJADE_TARGET = ("--target-version", "6.1")


def _templates() -> list[str]:
    return sorted(str(path.relative_to(paths.ROOT)) for path in (paths.ROOT / "templates").rglob("*.html"))


def _tool(name: str) -> str:
    """A program of the environment that no `python -m` starts."""
    return str(Path(sys.executable).with_name(name))


def check_commands() -> dict[str, Command]:
    """Name and command line of each check, in the order of running."""
    python = sys.executable
    return {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "mypy": [python, "-m", "mypy", "."],
        "djade": [_tool("djade"), "--check", *DJADE_TARGET, *_templates()],
        "djlint": [python, "-m", "djlint", "--lint", "--profile", "django", "--quiet", "templates"],
        "import-linter": [_tool("lint-imports")],
        "manage.py check": [python, "manage.py", "check", "--fail-level", "WARNING"],
        "makemigrations": [python, "manage.py", "makemigrations", "--check", "--dry-run"],
    }


def check_run() -> int:
    """Run every check, also after a failure; show the output of those that failed. Returns the exit code."""
    with throwaway_stack() as environment:
        commands = check_commands()
        failed = [name for name, command in commands.items() if not _passes(name, command, environment)]
    say(f"check: {', '.join(failed)} failed" if failed else "check: all passed")
    return 1 if failed else 0


def format_run() -> int:
    """Rewrite Python and templates to the project's format. Returns the exit code."""
    lint = _here(sys.executable, "-m", "ruff", "check", "--fix", ".")
    layout = _here(sys.executable, "-m", "ruff", "format", ".")
    _here(_tool("djade"), *DJADE_TARGET, *_templates())  # it answers 1 when it changed a file
    return max(lint, layout)


def _here(*command: str) -> int:
    return subprocess.run(command, cwd=paths.ROOT, check=False).returncode


def _passes(name: str, command: Command, environment: Mapping[str, str]) -> bool:
    started = time.monotonic()
    result = subprocess.run(
        command,
        cwd=paths.ROOT,
        check=False,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    verdict = "ok" if result.returncode == 0 else "FAILED"
    say(f"  {name} {verdict} {time.monotonic() - started:.1f} s")
    if result.returncode != 0:
        say(f"{result.stdout}{result.stderr}".rstrip())
    return result.returncode == 0
