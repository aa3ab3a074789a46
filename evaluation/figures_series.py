"""Two more pictures: the F1 of each label, by run, and macro-F1 over releases. Geometry only, as in `figures`."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.figures import Source, Text
from evaluation.metrics import Interval

_MARGIN = 8
_WIDTH = 640
_PLOT_LEFT = 150
_PLOT_WIDTH = 400
_ROW = 18
_BAR = 12
_GROUP_GAP = 14
_LABEL_CHARS = 20
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)

_LINE_LEFT = 48
_LINE_TOP = 16
_LINE_HEIGHT = 200
_LINE_STEP = 96
_LINE_WIDTH_LEAST = 320
_CAP = 4
_LEVEL_NAMES = 200


@dataclass(frozen=True, slots=True)
class LabelBar:
    """One run's F1 of a label; `value` is a dash where the label was neither gold nor predicted."""

    x: int
    y: int
    width: int
    height: int
    run_x: int
    text_y: int
    value_x: int
    run: str
    value: str
    is_baseline: bool
    source: Source


@dataclass(frozen=True, slots=True)
class LabelGroup:
    """A label with the bar of each run below each other."""

    label: Text
    support: int
    bars: tuple[LabelBar, ...]


@dataclass(frozen=True, slots=True)
class LabelsFigure:
    """F1 by label on one scale from 0 to 1."""

    id: str
    width: int
    height: int
    plot_bottom: int
    ticks: tuple[Text, ...]
    groups: tuple[LabelGroup, ...]
    sources: tuple[tuple[str, Source], ...]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """One run's F1 by label (None: neither gold nor predicted); `name` is short, as "Run 3"."""

    name: str
    source: Source
    f1: tuple[float | None, ...]
    is_baseline: bool = False


def labels_figure(
    labels: Sequence[str], supports: Sequence[int], runs: Sequence[LabelScores], *, figure_id: str
) -> LabelsFigure:
    """Lay out labels downwards, each with a bar a run. ValueError without runs, or with scores for other labels."""
    if not runs or any(len(run.f1) != len(labels) for run in runs):
        raise ValueError("A picture of labels needs at least one run, with a score for each label.")
    pitch = _ROW * len(runs) + _GROUP_GAP
    bottom = pitch * len(labels)
    return LabelsFigure(
        id=figure_id,
        width=_WIDTH,
        height=bottom + 24,
        plot_bottom=bottom,
        ticks=tuple(Text(_x(value), bottom + 16, f"{value:.2f}", f"{value:.2f}") for value in _TICKS),
        groups=tuple(
            _group(label, supports[n], [(run, run.f1[n]) for run in runs], top=pitch * n)
            for n, label in enumerate(labels)
        ),
        sources=tuple((run.name, run.source) for run in runs),
    )


def _group(label: str, support: int, scores: Sequence[tuple[LabelScores, float | None]], *, top: int) -> LabelGroup:
    short = label if len(label) <= _LABEL_CHARS else label[: _LABEL_CHARS - 1].rstrip() + "…"
    return LabelGroup(
        label=Text(_PLOT_LEFT - 10, top + _GROUP_GAP // 2 + 11, label, short),
        support=support,
        bars=tuple(
            LabelBar(
                x=_x(0),
                y=top + _GROUP_GAP // 2 + _ROW * n,
                width=_x(f1 or 0) - _x(0),
                height=_BAR,
                run_x=_WIDTH - _MARGIN,
                text_y=top + _GROUP_GAP // 2 + _ROW * n + 10,
                value_x=_x(f1 or 0) + 6,
                run=run.name if len(scores) > 1 else "",
                value="-" if f1 is None else f"{f1:.2f}",
                is_baseline=run.is_baseline,
                source=run.source,
            )
            for n, (run, f1) in enumerate(scores)
        ),
    )


def _x(value: float) -> int:
    return _PLOT_LEFT + round(_PLOT_WIDTH * value)


@dataclass(frozen=True, slots=True)
class LinePoint:
    """A value at one place of a line, with its interval; `name` stands below."""

    name: str
    value: float
    interval: Interval
    source: Source


@dataclass(frozen=True, slots=True)
class Level:
    """A value that the points are compared with, drawn as a level across the picture."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class DrawnLevel:
    y: int
    text_y: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class DrawnPoint:
    x: int
    y: int
    low_y: int
    high_y: int
    cap_left: int
    cap_right: int
    value_y: int
    value: str
    interval: str
    name: Text
    source: Source


@dataclass(frozen=True, slots=True)
class LinesFigure:
    """Values from left to right on a scale from 0 to 1, joined by a line (`path` empty for one point)."""

    id: str
    width: int
    height: int
    left: int
    right: int
    ticks: tuple[Text, ...]
    points: tuple[DrawnPoint, ...]
    path: str
    level: str
    levels: tuple[DrawnLevel, ...] = ()


def lines_figure(points: Sequence[LinePoint], *, figure_id: str, levels: Sequence[Level] = ()) -> LinesFigure:
    """Lay out points at equal distances, and levels beside which they stand. ValueError without points."""
    if not points:
        raise ValueError("A line needs at least one point.")
    drawn = tuple(_drawn(n, point) for n, point in enumerate(points))
    right = max(_LINE_LEFT + _LINE_STEP * len(points), _LINE_WIDTH_LEAST)
    # Names of levels stand right of the points.
    width = right + _MARGIN + (_LEVEL_NAMES if levels else 0)
    joined = "L".join(f"{point.x} {point.y}" for point in drawn)
    return LinesFigure(
        id=figure_id,
        width=width,
        height=_LINE_TOP + _LINE_HEIGHT + 28,
        left=_LINE_LEFT,
        right=right,
        ticks=tuple(Text(_LINE_LEFT - 8, _y(value), f"{value:.2f}", f"{value:.2f}") for value in _TICKS),
        points=drawn,
        path=f"M{joined}" if len(points) > 1 else "",
        level=f"{points[0].interval.level:.0%}",
        levels=_levels(levels),
    )


def _levels(levels: Sequence[Level]) -> tuple[DrawnLevel, ...]:
    """From the highest down; names that would stand in each other are moved apart."""
    drawn: list[DrawnLevel] = []
    for one in sorted(levels, key=lambda level: -level.value):
        y = _y(one.value)
        text_y = max(y - 4, drawn[-1].text_y + 13 if drawn else 0)
        drawn.append(DrawnLevel(y, text_y, one.name, f"{one.value:.2f}"))
    return tuple(drawn)


def _drawn(place: int, point: LinePoint) -> DrawnPoint:
    x = _LINE_LEFT + _LINE_STEP // 2 + _LINE_STEP * place
    short = point.name if len(point.name) <= 12 else point.name[:11].rstrip() + "…"
    return DrawnPoint(
        x=x,
        y=_y(point.value),
        low_y=_y(point.interval.low),
        high_y=_y(point.interval.high),
        cap_left=x - _CAP,
        cap_right=x + _CAP,
        value_y=max(_y(point.interval.high) - 6, 11),
        value=f"{point.value:.2f}",
        interval=f"{point.interval.low:.2f} to {point.interval.high:.2f}",
        name=Text(x, _LINE_TOP + _LINE_HEIGHT + 18, point.name, short),
        source=point.source,
    )


def _y(value: float) -> int:
    return _LINE_TOP + round(_LINE_HEIGHT * (1 - value))
