"""The canonical manifest of a ruleset and the prompt compiled from it. Pure: no database, no clock.

The compiled prompt has four sections: the preamble, the labels, the numbered instructions, the output contract. An
instruction is untrusted text (a teacher wrote it), so every line break in it, whatever the character, is folded to one
space: it stays one numbered line and can neither open a section nor add an item. The manifest keeps its exact text.

How a manifest of one schema compiles never changes: the database rebuilds the prompt by itself at freezing,
and signed prompts must come out the same for as long as they are served. Another way to compile is another schema.

- "ruleset-manifest/v1" named two points of the sign-off policy. Rulesets frozen under it stay valid.
- "ruleset-manifest/v2" compiles the same way and carries the whole policy with its version, so that what was asked
  of the signers is inside the bytes they signed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pld_app.canonical import canonical_json, sha256_hex

V1: Final = "ruleset-manifest/v1"
SCHEMA: Final = "ruleset-manifest/v2"
LABELS_HEADING = "## Labels"
INSTRUCTIONS_HEADING = "## Instructions"
ANSWER_HEADING = "## Answer"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Policy(_Frozen):
    """What the task asks of its signers. The presets are what a v1 manifest, which does not name them, stands for."""

    signers_required: int
    signer_roles: list[str]
    version: int = 0
    """Of the task's policy; 0 in a v1 manifest."""
    signatories_required: int = 0
    domains: list[str] = []
    miners_may_sign: bool = True
    publisher_may_have_signed: bool = True
    read_changed_first: bool = False


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

    schema_id: Literal["ruleset-manifest/v1", "ruleset-manifest/v2"] = Field(alias="schema")
    task: str
    ruleset: int
    name: str
    labels: list[str]
    policy: Policy
    preamble: str
    output_contract: str
    prompt_sha256: str
    instructions: list[ManifestInstruction]

    @model_validator(mode="after")
    def _policy_of_its_schema(self) -> Self:
        """A v1 manifest names its two points and no more, a v2 one names them all."""
        named = self.policy.model_fields_set
        wanted = {"signers_required", "signer_roles"} if self.schema_id == V1 else set(Policy.model_fields)
        if named != wanted or (self.schema_id != V1 and self.policy.version < 1):
            raise ValueError("the policy is not one of this schema")
        return self

    def content(self) -> dict[str, Any]:  # JSON values
        """As it stands in the signed bytes: nothing that they do not name."""
        return self.model_dump(by_alias=True, exclude_unset=True)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a manifest says besides its instructions."""

    task: str
    ruleset: int
    name: str
    labels: Sequence[str]
    policy: Policy
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
    return prompt_frame(preamble, labels, _numbered(instructions), output_contract)


def _numbered(instructions: Sequence[str]) -> str:
    lines = [one_line(text) for text in instructions]
    if not all(lines):
        raise ValueError("an instruction has no visible text")
    return "\n".join([INSTRUCTIONS_HEADING, *(f"{place}. {line}" for place, line in enumerate(lines, start=1))])


def prompt_without(prompt: str, instructions: Sequence[str], place: int) -> str:
    """A compiled prompt as it would be without the instruction at `place` (from 0); all else keeps its bytes.

    Raises ValueError when these are not the prompt's instructions.
    """
    block = f"\n\n{_numbered(instructions)}\n\n"
    if prompt.count(block) != 1:
        raise ValueError("the prompt does not hold these instructions once")
    return prompt.replace(block, f"\n\n{_numbered([*instructions[:place], *instructions[place + 1 :]])}\n\n")


def prompt_frame(preamble: str, labels: Sequence[str], middle: str, output_contract: str) -> str:
    """The frame of every prompt around what stands in its `middle`; baselines differ from a release in that alone."""
    sections = [
        _block(preamble),
        "\n".join([LABELS_HEADING, *(f"- {one_line(label)}" for label in labels)]),
        middle,
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
        policy=frame.policy,
        preamble=frame.preamble,
        output_contract=frame.output_contract,
        prompt_sha256=sha256_hex(prompt),
        instructions=list(instructions),
    )
    data = canonical_json(manifest.content())
    return Compiled(data, sha256_hex(data), prompt, manifest.prompt_sha256)


def manifest_read(data: bytes) -> Manifest:
    """The manifest in these bytes. Raises pydantic.ValidationError when they are not one."""
    return Manifest.model_validate_json(data)
