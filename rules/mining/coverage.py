"""Which members of a cluster its instruction leaves out, so that no condition vanishes in a summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rules.mining.arrays import FloatArray
from rules.mining.drafts import Draft, draft_instruction

# Cosine of centred vectors below which two rules of one cluster say different things. On the Contract-NLI traces the
# extractive drafts leave 8 of 1,037 rules farther than this from all they cite.
_NEAR = 0.3


@dataclass(frozen=True)
class LeftOut:
    """A further draft of members that were left out; numbers are rows of the cluster; `covered` includes `cited`."""

    text: str
    cited: list[int]
    covered: list[int]


def left_out_rows(vectors: FloatArray, cited: Sequence[int]) -> list[int]:
    """Rows of the cluster (unit `vectors`, n rows) that are near to none of the cited ones, in order."""
    if not len(vectors):
        return []
    if not cited:
        return list(range(len(vectors)))
    nearest = (vectors @ vectors[list(cited)].T).max(axis=1)
    nearest[list(cited)] = 1.0  # a text without a known word is a zero row, near to nothing, itself included
    return np.flatnonzero(nearest < _NEAR).tolist()


def left_out_drafts(
    texts: Sequence[str],
    vectors: FloatArray,
    cited: Sequence[int],
    *,
    labels: Sequence[str] = (),
    max_conditions: int = 3,
    most: int = 10,
) -> list[LeftOut]:
    """Drafts of what `cited` leaves out, at most `most`; together they leave nothing out unless that many are full.

    Texts that say word for word the same as a cited one are covered by it, whatever their vectors.
    """
    said = {_plain(texts[row]) for row in cited}
    rows = [row for row in left_out_rows(vectors, cited) if _plain(texts[row]) not in said]
    drafts: list[LeftOut] = []
    while rows and len(drafts) < most:
        draft = draft_instruction(
            [texts[row] for row in rows], vectors[rows], labels=labels, max_conditions=max_conditions
        )
        found = _covered(rows, texts, vectors, draft)
        drafts.append(found)
        rows = [row for row in rows if row not in set(found.covered)]
    return drafts


def _covered(rows: list[int], texts: Sequence[str], vectors: FloatArray, draft: Draft) -> LeftOut:
    cited = [rows[place] for place in draft.cited]
    said = {_plain(texts[row]) for row in cited}
    far = {rows[place] for place in left_out_rows(vectors[rows], draft.cited)}
    return LeftOut(draft.text, cited, [row for row in rows if row not in far or _plain(texts[row]) in said])


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
