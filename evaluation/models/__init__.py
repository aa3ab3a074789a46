"""Rows of evaluation: datasets and their examples, runs and their predictions, runs started together, ablations."""

from evaluation.models.ablations import Ablation, AblationItem, AblationOrder, AblationResult
from evaluation.models.datasets import Dataset, DatasetCheck, DatasetSource, DatasetState, Example, InputTemplate
from evaluation.models.groups import RunGroup
from evaluation.models.reevaluation import Cause, Reevaluation, ReevaluationPlan
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
    "Cause",
    "Dataset",
    "DatasetCheck",
    "DatasetSource",
    "DatasetState",
    "EvaluationRun",
    "Example",
    "InputTemplate",
    "Prediction",
    "PredictionOutcome",
    "PromptKind",
    "Reevaluation",
    "ReevaluationPlan",
    "RunGroup",
]
