"""For each instruction the rules nearest to it, worked out once a mining run so that no card has to."""

from collections import Counter

from django.db import transaction

from rules.mining.similar import families, nearest_texts
from rules.models import Instruction, InstructionStatus, NearDuplicate, SimilarRule, Task


def similar_refresh(task: Task) -> int:
    """Compare the present texts of a task with each other and keep what is nearest; how many pairs were kept.

    Derived rows: all are written anew, and a repeated call changes nothing. O(n²) in the number of instructions, done
    outside any transaction but the short one that writes.
    """
    standing = Instruction.objects.filter(task=task).exclude(status=InstructionStatus.SUPERSEDED)
    rows = list(standing.filter(current_revision__isnull=False).select_related("current_revision").order_by("number"))
    texts = [row.current_revision.text if row.current_revision else "" for row in rows]
    found = nearest_texts(texts, [row.label for row in rows], names=task.labels)
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
