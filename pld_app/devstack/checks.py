"""`./dev check` and `./dev fmt`: every static check of the project, each shown with its time."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from pld_app.devstack import paths
from pld_app.devstack.processes import say
from pld_app.devstack.stack import throwaway_stack

Command = Sequence[str]


def _templates() -> list[str]:
    return sorted(str(path.relative_to(paths.ROOT)) for path in (paths.ROOT / "templates").rglob("*.html"))


def check_commands() -> dict[str, Command]:
    """Name and command line (without the interpreter) of each check."""
    templates = _templates()
    return {
        "ruff check": ["-m", "ruff", "check", "."],
        "ruff format": ["-m", "ruff", "format", "--check", "."],
        "mypy": ["-m", "mypy", "."],
        "djade": ["-m", "djade", "--check", "--target-version", "6.1", *templates],
        "djlint": ["-m", "djlint", "--lint", "--profile", "django", "--quiet", "templates"],
        # A command without a module of its own name that runs.
        "import-linter": ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        "manage.py check": ["manage.py", "check", "--fail-level", "WARNING"],
        "makemigrations": ["manage.py", "makemigrations", "--check", "--dry-run"],
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
    templates = _templates()
    lint = _here("-m", "ruff", "check", "--fix", ".")
    layout = _here("-m", "ruff", "format", ".")
    _here("-m", "djade", "--target-version", "6.1", *templates)  # it answers 1 when it changed a file
    return max(lint, layout)


def _here(*command: str) -> int:
    return subprocess.run([sys.executable, *command], cwd=paths.ROOT, check=False).returncode


def _passes(name: str, command: Command, environment: Mapping[str, str]) -> bool:
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, *command],
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
