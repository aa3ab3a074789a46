"""What crosses an edge: rows of trace files and replies of the teacher."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from rules.limits import MAX_FIELD_CHARS, MAX_INSTRUCTION_CHARS

FieldText = Annotated[str, StringConstraints(max_length=MAX_FIELD_CHARS)]
FilledText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_FIELD_CHARS, pattern=r"\S")]


class TraceRow(BaseModel):
    """One line of a `trace.v1` file. Unknown keys are refused, so that a misspelt one is not lost in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
    input: Annotated[dict[str, FilledText], Field(min_length=1)]
    label: Annotated[str, StringConstraints(min_length=1, max_length=60)]
    rationale: FieldText = ""
    instruction: Annotated[str, StringConstraints(max_length=MAX_INSTRUCTION_CHARS)] = ""
    teacher: Annotated[str, StringConstraints(max_length=120)] = ""
    split: Annotated[str, StringConstraints(pattern=r"^(train|validation|test)$")] = "train"
    metadata: dict[str, str | int | bool | None] = {}


class ExtractionReply(BaseModel):
    """The teacher's answer for one trace: why the gold label holds, then one de-identified rule."""

    model_config = ConfigDict(extra="forbid")

    rationale: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARS)]


class SynthesisReply(BaseModel):
    """The teacher's instruction for one cluster and the numbers of the micro-rules it rests on."""

    model_config = ConfigDict(extra="forbid")

    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARS)]
    cited: Annotated[list[int], Field(min_length=1, max_length=200)]
