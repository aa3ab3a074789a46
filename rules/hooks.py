"""What packages above this one tell the sign-off: registered by them when they start, asked for by the pages here.

`rules` never imports `evaluation`; evaluation registers its figures, verdicts and objections here instead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.functional import Promise

if TYPE_CHECKING:
    from rules.models import Release, Ruleset, Task


@dataclass(frozen=True)
class Figure:
    """One figure of a ruleset, never without its student, split and n. `low` and `high` bound its 95% interval."""

    name: str | Promise
    value: float
    low: float | None
    high: float | None
    student: str
    split: str
    n: int
    url: str
    is_older: bool = False
    """Whether it is of another prompt than the frozen one, e.g. an earlier state of the draft."""


@dataclass(frozen=True)
class Verdict:
    """What a gate said about a ruleset."""

    gate: str
    passed: bool
    why: str
    url: str


type Figures = Callable[["Ruleset"], Iterable[Figure]]
type Verdicts = Callable[["Ruleset"], Iterable[Verdict]]
type Objections = Callable[["Release"], Iterable[str]]
type DatasetNow = Callable[["Task"], str | None]

_figures: dict[str, Figures] = {}
_verdicts: dict[str, Verdicts] = {}
_objections: dict[str, Objections] = {}
_datasets: dict[str, DatasetNow] = {}


def register(
    name: str,
    *,
    figures: Figures | None = None,
    verdicts: Verdicts | None = None,
    objections: Objections | None = None,
    dataset: DatasetNow | None = None,
) -> None:
    """Register what `name` can say; the same name again replaces it. Called from an app's `ready`.

    `objections` are asked before a scheduled publication goes live: each text it gives is a reason not to. `dataset`
    gives the SHA-256 of the newest dataset of a task.
    """
    if figures is not None:
        _figures[name] = figures
    if verdicts is not None:
        _verdicts[name] = verdicts
    if objections is not None:
        _objections[name] = objections
    if dataset is not None:
        _datasets[name] = dataset


@dataclass(frozen=True)
class Evidence:
    """What is known about a ruleset besides its texts."""

    figures: list[Figure]
    verdicts: list[Verdict]


def ruleset_evidence(ruleset: "Ruleset") -> Evidence:
    return Evidence(
        figures=[one for ask in _figures.values() for one in ask(ruleset)],
        verdicts=[one for ask in _verdicts.values() for one in ask(ruleset)],
    )


def publish_objections(release: "Release") -> list[str]:
    """Reasons why this release should not go live now; none registered means none."""
    return [why for ask in _objections.values() for why in ask(release)]


def dataset_now(task: "Task") -> str | None:
    """The SHA-256 of the dataset that measurements of this task are taken on now; None where there is none."""
    return next((sha256 for ask in _datasets.values() if (sha256 := ask(task))), None)
