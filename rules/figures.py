"""Geometry of the review's pictures: whole viewBox units, from which templates draw inline SVG without any style."""

from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 30


@dataclass(frozen=True, slots=True)
class Tick:
    x: int
    y: int
    text: str


@dataclass(frozen=True, slots=True)
class LineFigure:
    """A line over days; `path` is SVG path data, ticks stand at both ends and the top."""

    width: int
    height: int
    left: int
    right: int
    bottom: int
    path: str
    end: Tick
    values: list[Tick]
    days: list[Tick]


def line_figure(days: Sequence[tuple[str, int]]) -> LineFigure | None:
    """Of (day, count) in order; None below two days, which make no line."""
    if len(days) < 2:
        return None
    most = max(1, *(count for _day, count in days))
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    step = (right - _LEFT) / (len(days) - 1)

    def at(place: int, count: int) -> tuple[int, int]:
        return round(_LEFT + place * step), round(bottom - (bottom - _TOP) * count / most)

    points = [at(place, count) for place, (_day, count) in enumerate(days)]
    middle = len(days) // 2
    return LineFigure(
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=right,
        bottom=bottom,
        path="M" + "L".join(f"{x} {y}" for x, y in points),
        end=Tick(*points[-1], str(days[-1][1])),
        values=[Tick(_LEFT, at(0, value)[1], str(value)) for value in sorted({0, most // 2, most})],
        days=[Tick(at(place, 0)[0], bottom + 18, days[place][0]) for place in sorted({0, middle, len(days) - 1})],
    )
