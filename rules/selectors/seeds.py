"""The check items of a task, for those who make and audit them."""

from dataclasses import dataclass
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q

from rules.diff import Pair
from rules.hidden_text import Segment, reveal
from rules.models import Seed, Task
from rules.selectors.review_compare import label_index, shown_diff

PAGE_ROWS = 25


@dataclass(frozen=True, slots=True)
class SeedRow:
    seed: Seed
    text: list[Segment]
    label_index: int | None
    pairs: list[Pair]
    answered: int
    right: int


def seed_page(task: Task, number: str | None) -> tuple[Page[Any], list[SeedRow]]:
    """25 check items, newest first, each with its change against the text it was made from."""
    seeds = Seed.objects.filter(instruction__task=task).select_related("instruction", "source__current_revision")
    counted = seeds.annotate(
        answered=Count("answers"), right=Count("answers", filter=Q(answers__is_right=True))
    ).prefetch_related("instruction__revisions")
    page = Paginator(counted.order_by("-pk"), PAGE_ROWS).get_page(number)
    # Any: the rows carry the counts beside their own fields.
    return page, [_row(task, seed) for seed in page.object_list]


def _row(task: Task, seed: Seed) -> SeedRow:
    text = seed.instruction.revisions.all()[0].text
    before = seed.source.current_revision.text if seed.source.current_revision else ""
    return SeedRow(
        seed=seed,
        text=reveal(text),
        label_index=label_index(task, seed.instruction.label),
        pairs=shown_diff(before, text) if before != text else [],
        answered=getattr(seed, "answered", 0),
        right=getattr(seed, "right", 0),
    )
