"""The converter's rows fit the format and the task beside it, on the real data where it is there."""

import json
from pathlib import Path

import pytest

from rules.trace_files import Accepted, read_trace_file
from tests.converters import contractnli

EXAMPLE = {
    "id": "3:nda-11",
    "document_id": 3,
    "hypothesis_id": "nda-11",
    "hypothesis": "No reverse engineering.",
    "label": "Entailment",
    "evidence": ["The parties agree:", "not to decompile;"],
    "rationale": "Item two says so.",
    "instruction": "If decompiling is banned, then label Entailment.",
}


def test_an_example_becomes_a_row() -> None:
    assert contractnli.converted(EXAMPLE, split="train") == {
        "id": "train:3:nda-11",
        "input": {"premise": "The parties agree:\nnot to decompile;", "hypothesis": "No reverse engineering."},
        "label": "Entailment",
        "rationale": "Item two says so.",
        "instruction": "If decompiling is banned, then label Entailment.",
        "split": "train",
        "metadata": {"yardstick": "nda-11"},
    }


def test_an_example_without_evidence_says_so() -> None:
    bare = {key: EXAMPLE[key] for key in ("id", "hypothesis_id", "hypothesis", "label")} | {"evidence": []}
    row = contractnli.converted(bare, split="validation")
    assert row["input"]["premise"] == contractnli.NO_EVIDENCE
    assert not {"rationale", "instruction"} & set(row)


@pytest.mark.skipif(not contractnli.DATA.exists(), reason="the data is not beside the project (../shared/data)")
def test_every_real_row_is_a_valid_trace(tmp_path: Path) -> None:
    out = tmp_path / "contractnli.jsonl"
    assert contractnli.convert(contractnli.DATA, out) == 2 * 1037
    task = contractnli.CONTRACT_NLI_TASK
    with out.open("rb") as stream:
        outcomes = list(
            read_trace_file(stream, labels=task["labels"], input_fields=task["input_fields"], max_bytes=10**8)
        )
    assert {type(one) for one in outcomes} == {Accepted}
    assert len({json.loads(line)["id"] for line in out.read_text().splitlines()}) == len(outcomes)
