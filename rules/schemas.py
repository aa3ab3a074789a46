"""What crosses an edge: rows of trace files and replies of the teacher."""

from decimal import Decimal
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
    """The teacher's answer for one trace: why the gold label holds, then one de-identified rule.

    `item` repeats the question's own mark, so that an answer to another question is found out.
    """

    model_config = ConfigDict(extra="forbid")

    item: Annotated[str, StringConstraints(max_length=40)]
    rationale: Annotated[str, StringConstraints(min_length=1, max_length=8000)]
    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARS)]


class SynthesisReply(BaseModel):
    """The teacher's instruction for one cluster and the numbers of the micro-rules it rests on."""

    model_config = ConfigDict(extra="forbid")

    instruction: Annotated[str, StringConstraints(min_length=1, max_length=MAX_INSTRUCTION_CHARS)]
    cited: Annotated[list[int], Field(min_length=1, max_length=200)]


class ConflictReply(BaseModel):
    """The teacher's opinion of two instructions: one sentence why, then how they stand to each other.

    `item` repeats the question's own mark. The sentence is one line of visible text.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    item: Annotated[str, StringConstraints(max_length=40)]
    reason: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    relation: Literal["contradicts", "narrower", "duplicate", "compatible"]

    @field_validator("reason")
    @classmethod
    def _one_visible_line(cls, text: str) -> str:
        line = " ".join(text.split())
        if not line or not line.isprintable():
            raise ValueError("The reason is empty or holds characters that cannot be seen.")
        return line


# A line of the estimate that is no stage of its own: it is asked just before the candidates are written.
JUDGE_CONFLICTS = "judge"


class StageEstimate(BaseModel):
    """What one stage of a run may ask of an endpoint. `is_bound`: the calls are not known yet, only their most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str
    endpoint: str
    requests: Annotated[int, Field(ge=0)]
    recorded: Annotated[int, Field(ge=0)]
    prompt_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]
    cost: Decimal
    is_bound: bool = False
    # In a batch; then `direct_cost` is what the same calls would come to without it.
    is_batch: bool = False
    direct_cost: Decimal = Decimal(0)

    @property
    def calls(self) -> int:
        return self.requests - self.recorded


class RunEstimate(BaseModel):
    """What a run may come to before it has begun: replies at full length, no retries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: tuple[StageEstimate, ...] = ()

    @property
    def calls(self) -> int:
        return sum(stage.calls for stage in self.stages)

    @property
    def recorded(self) -> int:
        return sum(stage.recorded for stage in self.stages)

    @property
    def prompt_tokens(self) -> int:
        return sum(stage.prompt_tokens for stage in self.stages)

    @property
    def output_tokens(self) -> int:
        return sum(stage.output_tokens for stage in self.stages)

    @property
    def cost(self) -> Decimal:
        return sum((stage.cost for stage in self.stages), Decimal(0))


class MiningParameters(BaseModel):
    """How a run clusters and drafts; stored with the run. `resolution` None: chosen by stability.

    `compare_dbscan`: also compute the paper's DBSCAN on the same vectors, for the report alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["louvain", "leiden", "dbscan"] = "louvain"
    neighbours: Annotated[int, Field(ge=2, le=100)] = 15
    resolution: Annotated[float, Field(gt=0, le=50)] | None = None
    eps: Annotated[float, Field(gt=0, lt=2)] = 0.4
    min_samples: Annotated[int, Field(ge=1, le=100)] = 6
    compare_dbscan: bool = True
    max_conditions: Annotated[int, Field(ge=0, le=10)] = 3
    # Clusters of fewer micro-rules are shown as small groups; of the others no condition may be left out.
    min_group: Annotated[int, Field(ge=1, le=100)] = 3
    # How many workers may share the calls to each endpoint. Whoever asks, the questions are the same.
    workers: Annotated[int, Field(ge=1, le=16)] = 1
    # Extraction by OpenAI's Batch API, where the teacher's endpoint offers it.
    batch: bool = False
    # Whether the teacher is asked what it thinks of each conflict found.
    judge_conflicts: bool = False
    seed: int = 0

    def asks_as(self, other: "MiningParameters") -> bool:
        """Whether both lead to the same questions."""
        return self.model_copy(update={"workers": other.workers, "batch": other.batch}) == other
