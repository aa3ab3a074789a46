"""What crosses an edge: rows of trace files and replies of the teacher."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from rules.limits import MAX_FIELD_CHARS, MAX_INSTRUCTION_CHARS

FieldText = Annotated[str, StringConstraints(max_length=MAX_FIELD_CHARS)]
FilledText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_FIELD_CHARS, pattern=r"\S")]
# Whole numbers that every JSON reader keeps exact (RFC 8259, section 6).
JsonInt = Annotated[int, Field(ge=-(2**53) + 1, le=2**53 - 1)]


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
    metadata: dict[str, str | JsonInt | bool | None] = {}

    @field_validator("instruction")
    @classmethod
    def _blank_is_none(cls, text: str) -> str:
        # Spaces alone are no rule; every other text stays as it came, so that its hash can be checked later.
        return text if text.strip() else ""


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


class MiningParameters(BaseModel):
    """How a run clusters and drafts; stored with the run. `resolution` None: chosen by stability."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["louvain", "leiden", "dbscan"] = "louvain"
    neighbours: Annotated[int, Field(ge=2, le=100)] = 15
    resolution: Annotated[float, Field(gt=0, le=50)] | None = None
    eps: Annotated[float, Field(gt=0, lt=2)] = 0.4
    min_samples: Annotated[int, Field(ge=1, le=100)] = 6
    max_conditions: Annotated[int, Field(ge=0, le=10)] = 3
    seed: int = 0
