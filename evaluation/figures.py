"""Geometry of the pictures of evaluation: whole viewBox units, from which templates draw inline SVG without any style.

Every picture comes with the same figures as table rows, since a drawing is no substitute for numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.metrics import Confusion, Interval

_CELL_WIDTH = 96
_CELL_HEIGHT = 44
_HEADER_HEIGHT = 44
_LABEL_WIDTH = 150
_LABEL_CHARS = 20
_COLUMN_CHARS = 13
_MARGIN = 8
_ANSWERS_Y = 14
_HEADINGS_Y = 34
_GOLD_X = _MARGIN + _LABEL_WIDTH - 10

_BARS_WIDTH = 640
_PLOT_WIDTH = 480
_ROW_HEIGHT = 58
_BAR_TOP = 22
_BAR_HEIGHT = 14
_WHISKER_BELOW = 7  # under the bar, where it is seen on every colour
_WHISKER_CAP = 4
_TEXT_BELOW_MIDDLE = 4


@dataclass(frozen=True, slots=True)
class Source:
    """Whose figures these are; no picture is drawn without it."""

    prompt: str
    student: str
    split: str
    n: int

    @property
    def text(self) -> str:
        return f"{self.prompt} · {self.student} · {self.split} · n = {self.n}"


@dataclass(frozen=True, slots=True)
class Text:
    """A text anchored at (x, y); `short` fits its place, `full` is for the title and the table."""

    x: int
    y: int
    full: str
    short: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: `step` 0 to 9 shades it by its share of the row, `share` is that share as text."""

    x: int
    y: int
    width: int
    height: int
    text_x: int
    text_y: int
    step: int
    count: int
    share: str
    gold: str
    predicted: str

    @property
    def is_dark(self) -> bool:
        return self.step >= 5


@dataclass(frozen=True, slots=True)
class ConfusionRow:
    """A gold label with its cells, in column order, and the number of examples that carry it."""

    header: Text
    cells: tuple[Cell, ...]
    support: int


@dataclass(frozen=True, slots=True)
class ConfusionFigure:
    """Gold labels as rows; predicted labels, then malformed answers, as columns. `gold_x` is a right edge."""

    id: str
    width: int
    height: int
    gold_x: int
    answers_x: int
    answers_y: int
    headings_y: int
    columns: tuple[Text, ...]
    rows: tuple[ConfusionRow, ...]
    source: Source


@dataclass(frozen=True, slots=True)
class BarRun:
    """One evaluation run to be drawn as a bar. `interval` is that of its macro-F1."""

    source: Source
    macro_f1: float
    interval: Interval
    is_baseline: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from 0 to the macro-F1, its interval as a whisker below, and the texts above and beside it."""

    x: int
    y: int
    width: int
    height: int
    whisker_low: int
    whisker_high: int
    whisker_y: int
    cap_top: int
    cap_bottom: int
    caption: Text
    value_x: int
    value_y: int
    value: str
    interval: str
    is_baseline: bool
    source: Source


@dataclass(frozen=True, slots=True)
class BarsFigure:
    """Bars of macro-F1 on one scale from 0 to 1."""

    id: str
    width: int
    height: int
    plot_top: int
    plot_bottom: int
    ticks: tuple[Text, ...]
    bars: tuple[Bar, ...]
    level: str


def confusion_figure(confusion: Confusion, source: Source, *, figure_id: str, malformed: str) -> ConfusionFigure:
    """Lay out a confusion matrix. `figure_id` must be unique on the page; `malformed` is the last column's heading."""
    headings = (*confusion.labels, malformed)
    return ConfusionFigure(
        id=figure_id,
        width=_MARGIN + _LABEL_WIDTH + _CELL_WIDTH * len(headings) + _MARGIN,
        height=_HEADER_HEIGHT + _CELL_HEIGHT * len(confusion.labels) + _MARGIN,
        gold_x=_GOLD_X,
        answers_x=_column_x(0) + _CELL_WIDTH * len(headings) // 2,
        answers_y=_ANSWERS_Y,
        headings_y=_HEADINGS_Y,
        columns=tuple(
            _text(_column_x(j) + _CELL_WIDTH // 2, _HEADINGS_Y, heading, _COLUMN_CHARS)
            for j, heading in enumerate(headings)
        ),
        rows=tuple(
            _confusion_row(i, gold, counts, headings)
            for i, (gold, counts) in enumerate(zip(confusion.labels, confusion.counts, strict=True))
        ),
        source=source,
    )


def bars_figure(runs: Sequence[BarRun], *, figure_id: str) -> BarsFigure:
    """Lay out runs downwards in the order given; `figure_id` must be unique on the page. ValueError without runs."""
    if not runs:
        raise ValueError("A picture of runs needs at least one run.")
    plot_bottom = _ROW_HEIGHT * len(runs) + _MARGIN
    return BarsFigure(
        id=figure_id,
        width=_BARS_WIDTH,
        height=plot_bottom + 24,
        plot_top=0,
        plot_bottom=plot_bottom,
        ticks=tuple(
            _text(_plot_x(value), plot_bottom + 16, f"{value:.2f}", 4) for value in (0.0, 0.25, 0.5, 0.75, 1.0)
        ),
        bars=tuple(_bar(index, run) for index, run in enumerate(runs)),
        level=f"{runs[0].interval.level:.0%}",
    )


def _confusion_row(index: int, gold: str, counts: Sequence[int], headings: Sequence[str]) -> ConfusionRow:
    top = _HEADER_HEIGHT + _CELL_HEIGHT * index
    support = sum(counts)
    middle = top + _CELL_HEIGHT // 2 + _TEXT_BELOW_MIDDLE

    def cell(column: int, count: int, predicted: str) -> Cell:
        return Cell(
            x=_column_x(column),
            y=top,
            width=_CELL_WIDTH,
            height=_CELL_HEIGHT,
            text_x=_column_x(column) + _CELL_WIDTH // 2,
            text_y=middle,
            # In whole numbers: a float product could fall just short of the step it belongs to.
            step=min(9, 10 * count // support) if support else 0,
            count=count,
            share=f"{count / support:.0%}" if support else "-",
            gold=gold,
            predicted=predicted,
        )

    return ConfusionRow(
        header=_text(_GOLD_X, middle, gold, _LABEL_CHARS),
        cells=tuple(cell(j, count, headings[j]) for j, count in enumerate(counts)),
        support=support,
    )


def _bar(index: int, run: BarRun) -> Bar:
    top = _ROW_HEIGHT * index + _BAR_TOP
    middle = top + _BAR_HEIGHT // 2
    whisker = top + _BAR_HEIGHT + _WHISKER_BELOW
    return Bar(
        x=_plot_x(0),
        y=top,
        width=_plot_x(run.macro_f1) - _plot_x(0),
        height=_BAR_HEIGHT,
        whisker_low=_plot_x(run.interval.low),
        whisker_high=_plot_x(run.interval.high),
        whisker_y=whisker,
        cap_top=whisker - _WHISKER_CAP,
        cap_bottom=whisker + _WHISKER_CAP,
        caption=_text(_plot_x(0) + 4, top - 7, run.source.text, 96),
        value_x=_plot_x(run.macro_f1) + 8,
        value_y=middle + _TEXT_BELOW_MIDDLE,
        value=f"{run.macro_f1:.2f}",
        interval=f"{run.interval.low:.2f} to {run.interval.high:.2f}",
        is_baseline=run.is_baseline,
        source=run.source,
    )


def _column_x(column: int) -> int:
    return _MARGIN + _LABEL_WIDTH + _CELL_WIDTH * column


def _plot_x(value: float) -> int:
    return _MARGIN + 4 + round(_PLOT_WIDTH * value)


def _text(x: int, y: int, full: str, most: int) -> Text:
    return Text(x=x, y=y, full=full, short=full if len(full) <= most else full[: most - 1].rstrip() + "…")
