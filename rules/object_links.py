"""Where the objects of this package are shown, for whoever meets them in the audit log."""

from collections.abc import Iterator

from django.db.models import Model
from django.urls import reverse

from pld_app.object_links import link_register
from rules.models import (
    Instruction,
    MiningRun,
    Publication,
    Release,
    Ruleset,
    Signature,
    Task,
    TraceImport,
)

# Model, page, path to the task's slug, and what the page's address names it by: keyword and path to its value.
_PAGES: tuple[tuple[type[Model], str, str, tuple[str, str] | None], ...] = (
    (Task, "task", "slug", None),
    (TraceImport, "import-detail", "task__slug", ("pk", "pk")),
    (MiningRun, "mining-detail", "task__slug", ("pk", "pk")),
    (Instruction, "instruction-detail", "task__slug", ("number", "number")),
    (Ruleset, "ruleset-detail", "task__slug", ("number", "number")),
    (Signature, "ruleset-detail", "ruleset__task__slug", ("number", "ruleset__number")),
    (Release, "release-detail", "task__slug", ("version", "version")),
    (Publication, "release-detail", "task__slug", ("version", "release__version")),
)


def pages_register() -> None:
    for model, page, slug, number in _PAGES:
        link_register(model._meta.model_name or "", _Finder(model, page, slug, number))


class _Finder:
    def __init__(self, model: type[Model], page: str, slug: str, number: tuple[str, str] | None) -> None:
        self._model, self._page, self._slug, self._number = model, page, slug, number

    def __call__(self, pk: int) -> str:
        columns = [self._slug, *([self._number[1]] if self._number else [])]
        row = self._model._default_manager.filter(pk=pk).values_list(*columns).first()
        return reverse(self._page, kwargs=dict(self._arguments(row))) if row else ""

    def _arguments(self, row: tuple[object, ...]) -> Iterator[tuple[str, object]]:
        yield "slug", row[0]
        if self._number:
            yield self._number[0], row[1]
