"""Rows of evaluation: datasets and their examples, runs and their predictions, runs started together, ablations, and
loops of conflict resolution."""

from evaluation.models.ablations import Ablation, AblationItem, AblationOrder, AblationResult
from evaluation.models.datasets import Dataset, DatasetCheck, DatasetSource, DatasetState, Example, InputTemplate
from evaluation.models.groups import RunGroup
from evaluation.models.reevaluation import Cause, Reevaluation, ReevaluationPlan
from evaluation.models.rounds import (
    CaseBasis,
    CaseRole,
    GroupOutcome,
    LoopState,
    ResolutionCase,
    ResolutionGroup,
    ResolutionLoop,
    ResolutionRound,
    RoundState,
    StopReason,
)
from evaluation.models.runs import (
    BASELINES,
    NEED_STUDENT,
    WITH_INSTRUCTIONS,
    EvaluationRun,
    Prediction,
    PredictionOutcome,
    PromptKind,
)

__all__ = [
    "BASELINES",
    "NEED_STUDENT",
    "WITH_INSTRUCTIONS",
    "Ablation",
    "AblationItem",
    "AblationOrder",
    "AblationResult",
    "CaseBasis",
    "CaseRole",
    "Cause",
    "Dataset",
    "DatasetCheck",
    "DatasetSource",
    "DatasetState",
    "EvaluationRun",
    "Example",
    "GroupOutcome",
    "InputTemplate",
    "LoopState",
    "Prediction",
    "PredictionOutcome",
    "PromptKind",
    "Reevaluation",
    "ReevaluationPlan",
    "ResolutionCase",
    "ResolutionGroup",
    "ResolutionLoop",
    "ResolutionRound",
    "RoundState",
    "RunGroup",
    "StopReason",
]
