"""A look at a frozen dataset: examples of different splits that say nearly the same."""

from django.db import transaction

from evaluation.models import Dataset, DatasetCheck, Example
from evaluation.near import near_pairs
from pld_app.audit import audit_record
from pld_app.jobs import JobResult, Lease
from rules.models import Split

MOST_ROWS = 20_000
"""Examples of one split that are compared; of a larger one those with the lowest input hashes."""
SHOWN_PAIRS = 100
SIMILAR = 0.9


def dataset_check(dataset_id: int, lease: Lease) -> JobResult:
    """Compare the splits pair by pair and keep the closest examples; nothing happens when it was done before."""
    dataset = Dataset.objects.select_related("task").get(pk=dataset_id)
    if DatasetCheck.objects.filter(dataset=dataset).exists():
        return JobResult.DONE
    texts = {split: _texts(dataset, split) for split in Split}
    found: list[tuple[str, str, str, str, float]] = []
    for held_out, other in ((Split.TEST, Split.TRAIN), (Split.VALIDATION, Split.TRAIN), (Split.TEST, Split.VALIDATION)):
        for near in near_pairs(texts[held_out], texts[other], least=SIMILAR):
            found.append((near.one, held_out.value, near.other, other.value, round(near.similarity, 3)))
            if lease.lost.is_set():
                lease.check()
    found.sort(key=lambda pair: (-pair[4], pair[0], pair[2]))
    with transaction.atomic():
        lease.check()
        made = DatasetCheck.objects.create(
            dataset=dataset,
            compared=sum(map(len, texts.values())),
            of=sum(dataset.size(split) for split in Split),
            found=len(found),
            pairs=found[:SHOWN_PAIRS],
        )
        data = {"found": made.found, "compared": made.compared}
        audit_record("dataset.checked", actor=None, subject=dataset, task_slug=dataset.task.slug, data=data)
    return JobResult.DONE


def dataset_check_failed(dataset_id: int, error: str) -> None:
    """Nothing to undo: the page says that the check has no result."""


def _texts(dataset: Dataset, split: Split) -> dict[str, str]:
    """Text by id; at most MOST_ROWS."""
    rows = Example.objects.filter(dataset=dataset, split=split).order_by("input_sha256", "pk")[:MOST_ROWS]
    fields = dataset.task.input_fields
    return {
        external_id: "\n".join(str(values.get(field, "")) for field in fields)
        for external_id, values in rows.values_list("external_id", "input").iterator(chunk_size=1_000)
    }
