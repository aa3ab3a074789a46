"""For each instruction the rules nearest to it, worked out once a mining run so that no card has to."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from django.db import transaction

from rules.mining.similar import families, nearest_texts
from rules.models import Instruction, InstructionStatus, NearDuplicate, Seed, SimilarRule, Task


def similar_refresh(task: Task) -> int:
    """Compare the present texts of a task with each other and keep what is nearest; how many pairs were kept.

    Derived rows: all are written anew, and a repeated call changes nothing. O(n²) in the number of instructions, done
    outside any transaction but the short one that writes.
    """
    standing = Instruction.objects.filter(task=task).exclude(status=InstructionStatus.SUPERSEDED)
    rows = list(standing.filter(current_revision__isnull=False).select_related("current_revision").order_by("number"))
    texts = [row.current_revision.text if row.current_revision else "" for row in rows]
    found = nearest_texts(texts, [row.label for row in rows], names=task.labels, apart=_apart(rows))
    pairs = [
        SimilarRule(
            instruction=row, other=rows[near.row], rank=rank, similarity=round(near.similarity, 4), kind=near.kind
        )
        for row, beside in zip(rows, found, strict=True)
        for rank, near in enumerate(beside, 1)
    ]
    first = families(found)
    size = Counter(first)
    members = [
        NearDuplicate(instruction=row, family=rows[lowest].number)
        for row, lowest in zip(rows, first, strict=True)
        if size[lowest] > 1
    ]
    with transaction.atomic():
        Task.objects.select_for_update(of=("self",)).get(pk=task.pk)
        SimilarRule.objects.filter(instruction__task=task).delete()
        NearDuplicate.objects.filter(instruction__task=task).delete()
        SimilarRule.objects.bulk_create(pairs, batch_size=2000)
        NearDuplicate.objects.bulk_create(members, batch_size=2000)
    return len(pairs)


def _apart(rows: Sequence[Instruction]) -> dict[int, set[int]]:
    """Each check item, its source and other check items of that: never neighbours, by place.

    Side by side in the queue, or named as each other's nearest, one look would find the check item.
    """
    place_of = {row.pk: place for place, row in enumerate(rows)}
    groups: defaultdict[int, set[int]] = defaultdict(set)
    for source, instruction in Seed.objects.filter(instruction__in=rows).values_list("source", "instruction"):
        groups[source] |= {place_of[pk] for pk in (source, instruction) if pk in place_of}
    return {place: group - {place} for group in groups.values() for place in group}
