"""Pictures: the geometry is right, and what the templates draw is well-formed, escaped, unstyled and has its table."""

import re
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.figures import BarRun, BarsFigure, ConfusionFigure, Source, bars_figure, confusion_figure
from evaluation.metrics import Confusion, Interval

SOURCE = Source(prompt="Release 3", student="SmolLM2-135M", split="validation", n=10)
HOSTILE = "<script>alert(1)</script>" + "x" * 40


def interval(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, level=0.95, resamples=1_000, seed=0, n=10)


def confusion(labels: tuple[str, ...] = ("Allowed", "Forbidden")) -> ConfusionFigure:
    counts = ((5, 1, 0), (2, 1, 1))
    return confusion_figure(Confusion(labels=labels, counts=counts), SOURCE, figure_id="matrix", malformed="Malformed")


def bars(student: str = "SmolLM2-135M") -> BarsFigure:
    baseline = Source(prompt="Zero-shot", student=student, split="validation", n=1500)
    return bars_figure(
        [
            BarRun(source=baseline, macro_f1=0.5, interval=interval(0.25, 0.75), is_baseline=True),
            BarRun(source=SOURCE, macro_f1=1.0, interval=interval(1.0, 1.0)),
        ],
        figure_id="bars",
    )


def drawing(html: str) -> ElementTree.Element:
    """The SVG of a fragment as XML; raises when it is not well-formed."""
    match = re.search(r"<svg.*?</svg>", html, re.DOTALL)
    assert match
    return ElementTree.fromstring(match.group())  # noqa: S314 - our own template wrote it


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter("text")]


def test_cells_hold_counts_and_shares_of_their_row() -> None:
    figure = confusion()
    assert [column.full for column in figure.columns] == ["Allowed", "Forbidden", "Malformed"]
    assert [[cell.count for cell in row.cells] for row in figure.rows] == [[5, 1, 0], [2, 1, 1]]
    assert [[cell.share for cell in row.cells] for row in figure.rows] == [
        ["83%", "17%", "0%"],
        ["50%", "25%", "25%"],
    ]
    assert [[cell.step for cell in row.cells] for row in figure.rows] == [[8, 1, 0], [5, 2, 2]]
    assert [row.support for row in figure.rows] == [6, 4]


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5_000), min_size=4, max_size=4), min_size=3, max_size=3))
def test_cells_tile_the_drawing(counts: list[list[int]]) -> None:
    matrix = Confusion(labels=("A", "B", "C"), counts=tuple(tuple(row) for row in counts))
    figure = confusion_figure(matrix, SOURCE, figure_id="m", malformed="Malformed")
    cells = [cell for row in figure.rows for cell in row.cells]
    assert len({(cell.x, cell.y) for cell in cells}) == 12
    for cell in cells:
        assert 0 <= cell.step <= 9
        assert 0 <= cell.x < cell.text_x < cell.x + cell.width <= figure.width
        assert 0 <= cell.y < cell.text_y < cell.y + cell.height <= figure.height
    for row in figure.rows:
        for left, right in zip(row.cells, row.cells[1:], strict=False):
            assert left.x + left.width == right.x
            assert (left.count < right.count) <= (left.step <= right.step)


def test_a_label_without_examples_has_no_shares() -> None:
    matrix = Confusion(labels=("A", "B"), counts=((0, 0, 0), (1, 1, 0)))
    figure = confusion_figure(matrix, SOURCE, figure_id="m", malformed="Malformed")
    assert [(cell.step, cell.share) for cell in figure.rows[0].cells] == [(0, "-")] * 3


def test_bars_are_proportional_and_whiskers_stand_on_the_same_scale() -> None:
    figure = bars()
    half, whole = figure.bars
    assert whole.width == 2 * half.width
    assert half.whisker_low - half.x == half.width // 2
    assert half.whisker_high - half.x == half.width * 3 // 2
    assert [tick.x for tick in figure.ticks] == [half.x + whole.width * k // 4 for k in range(5)]
    assert whole.whisker_low == whole.whisker_high == whole.x + whole.width
    assert whole.value_x < figure.width - 30
    assert half.y + half.height < half.cap_top < half.whisker_y < half.cap_bottom < whole.caption.y - 12
    assert (half.value, half.interval, figure.level) == ("0.50", "0.25 to 0.75", "95%")


def test_every_bar_names_student_split_and_n() -> None:
    assert bars().bars[0].caption.full == "Zero-shot · SmolLM2-135M · validation · n = 1500"
    with pytest.raises(ValueError, match="at least one run"):
        bars_figure([], figure_id="bars")


def test_confusion_is_drawn_with_its_table() -> None:
    html = render_to_string("evaluation/_confusion.html", {"figure": confusion()})
    root = drawing(html)
    assert [rect.get("class") for rect in root.iter("rect")] == [f"fig-cell-{n}" for n in (8, 1, 0, 5, 2, 2)]
    assert root.get("aria-labelledby") == "matrix-title matrix-desc"
    assert {node.get("id") for node in root} >= {"matrix-title", "matrix-desc"}
    assert texts(root)[:2] == ["Answer", "Gold label"]
    assert html.count(SOURCE.text) == 3  # under the heading, in the drawing's title, under the table
    assert '<td class="num">5 (83%)</td>' in html
    assert html.index("<details") < html.index("<table")


def test_bars_are_drawn_with_their_table() -> None:
    html = render_to_string("evaluation/_bars.html", {"figure": bars()})
    root = drawing(html)
    assert [rect.get("class") for rect in root.iter("rect")] == ["fig-bar-baseline", "fig-bar"]
    assert len(list(root.iter("path"))) == 2
    assert "Zero-shot · SmolLM2-135M · validation · n = 1500" in texts(root)
    for cell in ("SmolLM2-135M", "validation", "0.50", "0.25 to 0.75"):
        assert f">{cell}</td>" in html


@pytest.mark.parametrize(
    ("template", "figure"),
    [("_confusion", confusion((HOSTILE, "B"))), ("_bars", bars(HOSTILE))],
    ids=["confusion", "bars"],
)
def test_labels_are_escaped_and_nothing_is_inline(template: str, figure: ConfusionFigure | BarsFigure) -> None:
    html = render_to_string(f"evaluation/{template}.html", {"figure": figure})
    root = drawing(html)
    assert "<script" not in html
    assert HOSTILE in "".join(root.itertext())
    assert all(not name.startswith(("style", "on")) for node in root.iter() for name in node.attrib)
    assert not re.search(r"\sstyle=|\son\w+=|<style", html)


def test_geometry_is_not_localised() -> None:
    """A thousands separator in a coordinate would break the drawing."""
    runs = [BarRun(source=SOURCE, macro_f1=0.5, interval=interval(0.4, 0.6)) for _ in range(40)]
    figure = bars_figure(runs, figure_id="bars")
    assert figure.height > 1_000
    with override_settings(USE_THOUSAND_SEPARATOR=True, THOUSAND_SEPARATOR=",", NUMBER_GROUPING=3):
        root = drawing(render_to_string("evaluation/_bars.html", {"figure": figure}))
    assert root.get("viewBox") == f"0 0 {figure.width} {figure.height}"
