"""Rows of evaluation: datasets and their examples, runs and their predictions, and runs started together."""

from evaluation.models.datasets import Dataset, DatasetCheck, DatasetSource, DatasetState, Example, InputTemplate
from evaluation.models.groups import RunGroup
from evaluation.models.runs import (
    BASELINES,
    NEED_STUDENT,
    EvaluationRun,
    Prediction,
    PredictionOutcome,
    PromptKind,
)

__all__ = [
    "BASELINES",
    "NEED_STUDENT",
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
    "RunGroup",
]
