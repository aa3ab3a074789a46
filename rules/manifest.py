"""The canonical manifest of a ruleset and the prompt compiled from it. Pure: no database, no clock.

The compiled prompt has four sections: the preamble, the labels, the numbered instructions, the output contract. An
instruction is untrusted text (a teacher wrote it), so every line break in it, whatever the character, is folded to one
space: it stays one numbered line and can neither open a section nor add an item. The manifest keeps its exact text.

How a manifest of one schema compiles never changes: the database rebuilds the prompt of "ruleset-manifest/v1" by itself
when a ruleset is frozen (migration 0003), and signed prompts must come out the same for as long as they are served.
Another way to compile is another schema.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pld_app.canonical import canonical_json, sha256_hex

SCHEMA: Final = "ruleset-manifest/v1"
LABELS_HEADING = "## Labels"
INSTRUCTIONS_HEADING = "## Instructions"
ANSWER_HEADING = "## Answer"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Policy(_Frozen):
    signers_required: int
    signer_roles: list[str]


class ManifestInstruction(_Frozen):
    """One approved text and where it comes from; `author` is empty when the text is the mined one."""

    number: int
    revision: int
    label: str
    text: str
    text_sha256: str
    origin: str
    support: int
    run: int | None
    author: str
    approved_by: str
    approved_at: str


class Manifest(_Frozen):
    """What is signed. Accounts are named by user name, times are UTC text with microseconds."""

    schema_id: Literal["ruleset-manifest/v1"] = Field(alias="schema")
    task: str
    ruleset: int
    name: str
    labels: list[str]
    policy: Policy
    preamble: str
    output_contract: str
    prompt_sha256: str
    instructions: list[ManifestInstruction]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a manifest says besides its instructions."""

    task: str
    ruleset: int
    name: str
    labels: Sequence[str]
    signers_required: int
    signer_roles: Sequence[str]
    preamble: str
    output_contract: str


@dataclass(frozen=True)
class Compiled:
    """The bytes to sign and the prompt they stand for, each with its SHA-256."""

    manifest: bytes
    manifest_sha256: str
    prompt: str
    prompt_sha256: str


def one_line(text: str) -> str:
    """The text on one line: each run of line breaks, with the blanks around it, becomes one space."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def prompt_compile(preamble: str, labels: Sequence[str], instructions: Sequence[str], output_contract: str) -> str:
    """The student's system prompt: the same bytes for the same input. Ends in one newline.

    Raises ValueError for an instruction without visible text, which would be a number with nothing behind it.
    """
    lines = [one_line(text) for text in instructions]
    if not all(lines):
        raise ValueError("an instruction has no visible text")
    sections = [
        _block(preamble),
        "\n".join([LABELS_HEADING, *(f"- {one_line(label)}" for label in labels)]),
        "\n".join([INSTRUCTIONS_HEADING, *(f"{place}. {line}" for place, line in enumerate(lines, start=1))]),
        f"{ANSWER_HEADING}\n{_block(output_contract)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _block(text: str) -> str:
    """Text of an administrator: its own lines stay, in one spelling of the line end."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def token_estimate(text: str) -> int:
    """Approximate tokens: characters over four, rounded up. A rule of thumb for English, not any model's tokenizer."""
    return math.ceil(len(text) / 4)


def manifest_build(frame: Frame, instructions: Sequence[ManifestInstruction]) -> Compiled:
    """Compile the prompt and the canonical manifest that names its hash. Raises ValueError as `prompt_compile` does."""
    texts = [instruction.text for instruction in instructions]
    prompt = prompt_compile(frame.preamble, frame.labels, texts, frame.output_contract)
    manifest = Manifest(
        schema=SCHEMA,
        task=frame.task,
        ruleset=frame.ruleset,
        name=frame.name,
        labels=list(frame.labels),
        policy=Policy(signers_required=frame.signers_required, signer_roles=sorted(frame.signer_roles)),
        preamble=frame.preamble,
        output_contract=frame.output_contract,
        prompt_sha256=sha256_hex(prompt),
        instructions=list(instructions),
    )
    data = canonical_json(manifest.model_dump(by_alias=True))
    return Compiled(data, sha256_hex(data), prompt, manifest.prompt_sha256)


def manifest_read(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises pydantic.ValidationError when they are not one."""
    return Manifest.model_validate_json(data)
