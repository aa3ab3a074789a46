"""The real teacher traces, read where they lie: they are never copied into the project."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

TRACES = Path(__file__).resolve().parents[2] / "../shared/data/contractnli/traces.jsonl"


@dataclass(frozen=True)
class LabelledTexts:
    """Micro-rules, their labels, and the hidden question each answers (the yardstick), in file order."""

    texts: list[str]
    labels: list[str]
    questions: list[str]

    @property
    def label_names(self) -> list[str]:
        return sorted(set(self.labels))


@pytest.fixture
def contract_nli() -> LabelledTexts:
    if not TRACES.exists():
        pytest.skip(f"The Contract-NLI traces are not on this machine ({TRACES}).")
    return _read(TRACES)


@cache
def _read(path: Path) -> LabelledTexts:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return LabelledTexts(
        [row["instruction"] for row in rows],
        [row["label"] for row in rows],
        [row["hypothesis_id"] for row in rows],
    )
