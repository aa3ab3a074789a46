"""What packages above this one tell the sign-off: registered by them when they start, asked for by the pages here.

`rules` never imports `evaluation`; evaluation registers its figures, verdicts and objections here instead.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from django.utils.functional import Promise

if TYPE_CHECKING:
    from rules.models import Instruction, Release, Ruleset, Task


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
    """What a gate said about a ruleset: its figure with where it comes from, or why nothing is shown.

    `low` and `high` bound the 95% interval; `value` None: there is no figure. `is_shown` False: neither passed nor not.
    """

    gate: str
    passed: bool
    why: str
    url: str
    is_shown: bool = True
    threshold: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    student: str = ""
    split: str = ""
    n: int = 0


@dataclass(frozen=True)
class DatasetOffer:
    """A frozen dataset that gates may be about; `counts` maps split to label to number of examples."""

    name: str
    sha256: str
    counts: dict[str, dict[str, int]]

    def size(self, split: str) -> int:
        return sum(self.counts.get(split, {}).values())


@dataclass(frozen=True)
class Change:
    """Something that an approval rested on and that is another one since: what, since when, where to look.

    `key` names it, so that it is told once.
    """

    key: str
    what: str
    at: datetime
    url: str


@dataclass(frozen=True)
class Case:
    """A measured example beside a rule; `inputs` are (field, text), untrusted. `said` empty: no usable answer."""

    name: str
    inputs: tuple[tuple[str, str], ...]
    gold: str
    said: str
    is_right: bool
    why: str
    is_cited: bool


@dataclass(frozen=True)
class CaseSet:
    """What a student did by one instruction: `source` names prompt, student, split and n, `url` leads to all cases."""

    title: str
    source: str
    url: str
    cases: tuple[Case, ...]
    is_of_present_text: bool


type Figures = Callable[["Ruleset"], Iterable[Figure]]
type Verdicts = Callable[["Ruleset"], Iterable[Verdict]]
type Objections = Callable[["Release"], Iterable[str]]
type DatasetNow = Callable[["Task"], str | None]
type Offers = Callable[["Task"], Iterable[DatasetOffer]]
type ChangesSince = Callable[["Ruleset", datetime], Iterable[Change]]
type Cases = Callable[["Instruction"], CaseSet | None]

_figures: dict[str, Figures] = {}
_verdicts: dict[str, Verdicts] = {}
_objections: dict[str, Objections] = {}
_datasets: dict[str, DatasetNow] = {}
_offers: dict[str, Offers] = {}
_changes: dict[str, ChangesSince] = {}
_cases: dict[str, Cases] = {}


def register(
    name: str,
    *,
    figures: Figures | None = None,
    verdicts: Verdicts | None = None,
    objections: Objections | None = None,
    dataset: DatasetNow | None = None,
    offers: Offers | None = None,
    changes: ChangesSince | None = None,
    cases: Cases | None = None,
) -> None:
    """Register what `name` can say; the same name again replaces it. Called from an app's `ready`.

    `objections` are asked before a scheduled publication goes live: each text it gives is a reason not to. `dataset`
    gives the SHA-256 of the newest dataset of a task, `offers` the datasets that gates can be about, `changes` what a
    ruleset rests on and is another one since a time.
    """
    if figures is not None:
        _figures[name] = figures
    if verdicts is not None:
        _verdicts[name] = verdicts
    if objections is not None:
        _objections[name] = objections
    if dataset is not None:
        _datasets[name] = dataset
    if offers is not None:
        _offers[name] = offers
    if changes is not None:
        _changes[name] = changes
    if cases is not None:
        _cases[name] = cases


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


def datasets_offered(task: "Task") -> list[DatasetOffer]:
    """Frozen datasets of the task, newest first."""
    return [one for ask in _offers.values() for one in ask(task)]


def evidence_changes(ruleset: "Ruleset", since: datetime) -> list[Change]:
    """What changed since `since`, oldest first."""
    return sorted((one for ask in _changes.values() for one in ask(ruleset, since)), key=lambda one: one.at)


def instruction_cases(instruction: "Instruction") -> list[CaseSet]:
    """What students got wrong and right by this instruction, for its card."""
    return [found for ask in _cases.values() if (found := ask(instruction)) is not None]
