"""`./dev` itself: plain sh, one clear line when Python is missing, and commands that make no sense refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pld_app.devstack.paths import ROOT


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A checkout's entry on a machine with a shell and a few basic tools but no usable Python."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "cksum", "dirname"):
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # an old Python fails the version question
    old.chmod(0o755)
    for name in ("dev", "uv.lock", "pyproject.toml", ".python-version"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_without_python_it_says_what_to_install_in_one_line(bare_machine: Path) -> None:
    result = subprocess.run(
        [str(bare_machine / "dev"), "demo"],
        env={"PATH": str(bare_machine / "bin"), "HOME": str(bare_machine)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "Python 3.12 or newer was not found: install it" in result.stderr


@pytest.mark.parametrize("arguments", [["demos"], ["demo", "--rest"], ["check", "everything"], ["up", "--reset"]])
def test_an_unknown_command_or_argument_is_refused_with_the_usage(arguments: list[str]) -> None:
    result = subprocess.run([str(ROOT / "dev"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage: ./dev COMMAND" in result.stderr
