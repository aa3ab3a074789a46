"""Datasets as their pages show them."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Count, QuerySet
from django.http import Http404

from evaluation.models import Dataset, DatasetCheck, DatasetState
from rules.models import Split, Task


@dataclass(frozen=True)
class SplitRow:
    """Numbers of one split by label, in the order of the labels."""

    split: str
    counts: tuple[int, ...]
    total: int


def dataset_list(task: Task) -> QuerySet[Dataset]:
    """The datasets of a task, newest first, with the number of runs over each."""
    return task.datasets.select_related("created_by").annotate(run_count=Count("runs")).order_by("-pk")


def dataset_get(slug: str, number: int) -> Dataset:
    found = Dataset.objects.select_related("task", "created_by").filter(task__slug=slug, number=number).first()
    if found is None:
        raise Http404
    return found


def split_rows(dataset: Dataset, labels: Sequence[str]) -> list[SplitRow]:
    """One row a split that has examples."""
    return [
        SplitRow(
            split=str(split.label),
            counts=tuple(dataset.counts[split].get(label, 0) for label in labels),
            total=dataset.size(split),
        )
        for split in Split
        if split in dataset.counts
    ]


def check_of(dataset: Dataset) -> DatasetCheck | None:
    """What the look for near copies found, once it is done."""
    return DatasetCheck.objects.filter(dataset=dataset).first()


def newest_sha256(task: Task) -> str | None:
    """The hash of the newest frozen dataset of a task; None where there is none."""
    return task.datasets.filter(state=DatasetState.FROZEN).values_list("sha256", flat=True).first()
