"""A small log-log plot as an SVG file of its own, readable on light and dark grounds and without colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 680, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 136, 44, 48
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.t{font-weight:600}.g{stroke:#999;stroke-opacity:.35}"
    ".l{fill:none;stroke:#24406f;stroke-width:2}.l1{stroke:#7c5c00;stroke-dasharray:6 4}"
    ".p{fill:#24406f}.p1{fill:#7c5c00}.m{fill:none;stroke:#931d22;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.l{stroke:#a3bcec}.l1{stroke:#dfc164}"
    ".p{fill:#a3bcec}.p1{fill:#dfc164}.m{stroke:#f2a19c}}"
)


@dataclass(frozen=True)
class Series:
    """One line: a value for each n."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Target:
    """A mark the lines should stay below."""

    n: int
    value: float


@dataclass(frozen=True)
class _Axis:
    """Whole powers of ten from `low` to `high`, drawn from `start` to `end`."""

    low: int
    high: int
    start: float
    end: float

    def at(self, value: float) -> float:
        return round(self.start + (log10(value) - self.low) / (self.high - self.low) * (self.end - self.start), 1)

    @property
    def ticks(self) -> list[int]:
        return list(range(self.low, self.high + 1))


def log_log_svg(title: str, sizes: Sequence[int], series: Sequence[Series], targets: Sequence[Target]) -> str:
    """The plot with n (> 0) across and the values (> 0) up; the numbers stand in its description as well."""
    values = [value for one in series for value in one.values] + [target.value for target in targets]
    across = _axis([*sizes, *(target.n for target in targets)], LEFT, WIDTH - RIGHT)
    up = _axis(values, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(across, up), *_lines(across, up, sizes, series), *_marks(across, up, targets)]
    told = "; ".join(
        f"{one.name}: {', '.join(f'{n:,}: {value} s' for n, value in zip(sizes, one.values, strict=True))}"
        for one in series
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-labelledby="t d"><title id="t">{escape(title)}</title><desc id="d">{escape(told)}</desc>'
        f'<style>{_STYLE}</style><text class="t" x="{LEFT}" y="20">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>", ""])


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return _Axis(low, max(high, low + 1), start, end)


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    for power in across.ticks:
        x = across.at(10.0**power)
        parts.append(f'<path class="g" d="M{x} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**power:,}</text>')
    for power in up.ticks:
        y = up.at(10.0**power)
        parts.append(f'<path class="g" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{10.0**power:g} s</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}">micro-rules (both axes are logarithmic)</text>')
    return parts


def _lines(across: _Axis, up: _Axis, sizes: Sequence[int], series: Sequence[Series]) -> list[str]:
    parts = []
    for number, one in enumerate(series):
        points = [(across.at(n), up.at(value)) for n, value in zip(sizes, one.values, strict=True)]
        parts.append(f'<path class="l l{number}" d="M{" ".join(f"{x} {y}" for x, y in points)}"/>')
        parts += [f'<circle class="p p{number}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in points]
        x, y = points[-1]
        parts.append(f'<text x="{x + 8}" y="{y + (16 if number else -4)}">{one.name} {one.values[-1]:g} s</text>')
    return parts


def _marks(across: _Axis, up: _Axis, targets: Sequence[Target]) -> list[str]:
    told = ", ".join(f"{target.value:g} s at {target.n:,}" for target in targets)
    marks = [f'<path class="m" d="M{across.at(one.n) - 12} {up.at(one.value)}h24"/>' for one in targets]
    return [*marks, f'<text x="{WIDTH - 12}" y="{HEIGHT - 8}" text-anchor="end">bars: at most {told}</text>']
