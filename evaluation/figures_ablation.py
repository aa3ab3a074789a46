"""The picture of an ablation: answers broken to the left, fixed to the right. Geometry only, as in `figures`."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.figures import Source, Text

_WIDTH = 640
_LEFT = 72
_PLOT = 500
_TOP = 20
_ROW = 34
_BAR = 14
_WHISKER_BELOW = 6
_CAP = 3
_TICKS_BELOW = 16


@dataclass(frozen=True, slots=True)
class LeftOut:
    """One instruction left out: of `n` answers so many became right or wrong. `low` and `high` bound the 95% interval
    of their difference (fixed minus broken), in answers."""

    name: str
    fixed: int
    broken: int
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class LeftOutBar:
    """Both bars touch the axis; the whisker below them is the interval of their difference."""

    of: LeftOut
    y: int
    height: int
    text_y: int
    broken_x: int
    broken_width: int
    fixed_x: int
    fixed_width: int
    whisker_low: int
    whisker_high: int
    whisker_y: int
    cap_top: int
    cap_bottom: int
    broken_text_x: int
    fixed_text_x: int

    @property
    def interval(self) -> str:
        return f"{self.of.low:+.1f} to {self.of.high:+.1f}"


@dataclass(frozen=True, slots=True)
class AblationFigure:
    """Instructions downwards on one scale of answers; `of` were measured, `bars` are those drawn."""

    id: str
    width: int
    height: int
    name_x: int
    axis_x: int
    heading_y: int
    broken_heading_x: int
    fixed_heading_x: int
    plot_top: int
    plot_bottom: int
    ticks: tuple[Text, ...]
    bars: tuple[LeftOutBar, ...]
    of: int
    source: Source


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where so many answers stand; `per_answer` is in viewBox units."""

    axis: int
    per_answer: float

    def x(self, answers: float) -> int:
        return self.axis + round(answers * self.per_answer)


def ablation_figure(found: Sequence[LeftOut], source: Source, *, of: int, figure_id: str) -> AblationFigure:
    """Lay out instructions in the order given. ValueError without any."""
    if not found:
        raise ValueError("A picture of an ablation needs at least one instruction.")
    left = max(1.0, *(max(one.broken, -one.low) for one in found))
    right = max(1.0, *(max(one.fixed, one.high) for one in found))
    scale = _Scale(_LEFT + round(left * _PLOT / (left + right)), _PLOT / (left + right))
    bottom = _TOP + _ROW * len(found)

    ends = {-int(left), 0, int(right)}
    return AblationFigure(
        id=figure_id,
        width=_WIDTH,
        height=bottom + _TICKS_BELOW + 8,
        name_x=_LEFT - 26,
        axis_x=scale.axis,
        heading_y=_TOP - 8,
        broken_heading_x=scale.axis - 6,
        fixed_heading_x=scale.axis + 6,
        plot_top=_TOP,
        plot_bottom=bottom,
        ticks=tuple(Text(scale.x(end), bottom + _TICKS_BELOW, f"{abs(end)}", f"{abs(end)}") for end in sorted(ends)),
        bars=tuple(_bar(one, _TOP + _ROW * place, scale) for place, one in enumerate(found)),
        of=of,
        source=source,
    )


def _bar(one: LeftOut, top: int, scale: _Scale) -> LeftOutBar:
    y = top + 4
    whisker = y + _BAR + _WHISKER_BELOW
    broken, fixed = scale.x(-one.broken), scale.x(one.fixed)
    return LeftOutBar(
        of=one,
        y=y,
        height=_BAR,
        text_y=y + _BAR - 3,
        broken_x=broken,
        broken_width=scale.axis - broken,
        fixed_x=scale.axis,
        fixed_width=fixed - scale.axis,
        whisker_low=scale.x(one.low),
        whisker_high=scale.x(one.high),
        whisker_y=whisker,
        cap_top=whisker - _CAP,
        cap_bottom=whisker + _CAP,
        broken_text_x=broken - 6,
        fixed_text_x=fixed + 6,
    )
