"""The signed prompt for a student's service: fetched, checked, kept, and the last good one when anything is wrong.

Needs the standard library alone, so that it can be copied beside the student. Call `Loader.load` every 30 seconds, or
run it: `python student_loader.py https://review.example.org nda --cache prompt.json` with the token in
PLD_PROMPT_TOKEN prints the prompt. Exit code 0: it is the one served now; 3: the last good one, and why on standard
error; 1: there is none.
"""

import argparse
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 8 * 1024 * 1024


class NoPrompt(Exception):
    """Nothing valid was fetched, and nothing valid is kept."""


@dataclass(frozen=True)
class Loaded:
    """A prompt whose bytes hash to what was said of them; `fault` is empty when the server confirmed it just now."""

    prompt: str
    version: int
    sha256: str
    fault: str = ""


class Loader:
    """One task and channel. `alert` is called with words, at once, whenever something is not as it must be."""

    def __init__(
        self,
        server: str,
        task: str,
        token: str,
        cache: Path,
        *,
        channel: str = "production",
        alert: Callable[[str], None],
    ) -> None:
        self._url = f"{server.rstrip('/')}/api/v1/tasks/{task}/prompt?channel={channel}"
        self._token, self._cache, self._alert = token, cache, alert
        self._last: Loaded | None = None

    def load(self) -> Loaded:
        """The prompt to use now. Raises NoPrompt; never returns bytes that failed their check."""
        kept = self._kept()
        try:
            loaded = self._fetched(kept)
        except (OSError, ValueError, KeyError) as error:
            words = f"prompt not taken: {error}"
            self._alert(words)
            last = kept or self._last
            if last is None:
                raise NoPrompt(words) from error
            return Loaded(last.prompt, last.version, last.sha256, words)
        self._last = loaded
        return loaded

    def _fetched(self, kept: Loaded | None) -> Loaded:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if kept is not None:
            headers["If-None-Match"] = f'"{kept.sha256}-{kept.version}"'
        request = urllib.request.Request(self._url, headers=headers)  # noqa: S310  # the address is the operator's
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                said, data = str(answer.headers.get("X-Prompt-SHA256")), answer.read(LIMIT + 1)
        except urllib.error.HTTPError as error:
            if error.code == 304 and kept is not None:
                return kept
            raise ValueError(f"the server answered {error.code}") from error
        if len(data) > LIMIT:
            raise ValueError("the answer is too long")
        body = json.loads(data)
        loaded = _checked(body)
        if said != loaded.sha256:
            raise ValueError("the answer's header names another prompt")
        self._keep(body)
        return loaded

    def _kept(self) -> Loaded | None:
        """What the file holds, if its bytes hold; a damaged one is told and not used."""
        try:
            return _checked(json.loads(self._cache.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._alert(f"the kept prompt in {self._cache} is damaged and not used: {error}")
            return None

    def _keep(self, body: dict[str, Any]) -> None:
        """Whole or not at all: a power cut leaves the file before."""
        part = self._cache.with_suffix(".part")
        part.write_text(json.dumps(body), encoding="utf-8")
        part.replace(self._cache)


def _checked(body: dict[str, Any]) -> Loaded:
    sha256 = hashlib.sha256(body["prompt"].encode()).hexdigest()
    if sha256 != body["prompt_sha256"]:
        raise ValueError("the prompt is not the one its hash names")
    return Loaded(body["prompt"], int(body["version"]), sha256)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("server")
    parser.add_argument("task")
    parser.add_argument("--channel", default="production")
    parser.add_argument("--cache", type=Path, required=True)
    given = parser.parse_args()
    token = os.environ.get("PLD_PROMPT_TOKEN", "")
    alert = lambda words: print(words, file=sys.stderr)  # noqa: E731, T201
    try:
        loaded = Loader(given.server, given.task, token, given.cache, channel=given.channel, alert=alert).load()
    except NoPrompt:
        return 1
    sys.stdout.write(loaded.prompt)
    return 3 if loaded.fault else 0


if __name__ == "__main__":
    sys.exit(main())
