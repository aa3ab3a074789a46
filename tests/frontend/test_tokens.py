"""The design tokens keep text readable: contrast is computed from the file, not believed."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSS = ROOT / "static" / "css"
THEMES = ("light", "dark")
TONES = ("ok", "warn", "danger", "info", "idle", "seal")
TEXT_PAIRS = [
    *product(("ink", "ink-muted", "ink-faint", "accent", "accent-hover"), ("paper", "sheet", "well", "row-hover")),
    *[(f"{tone}-ink", ground) for tone in TONES for ground in (f"{tone}-wash", "paper", "sheet", "well")],
    *product((f"label-{n}" for n in range(6)), ("paper", "sheet", "well")),
    *[("heat-ink-low", f"heat-{n}") for n in range(5)],
    *[("heat-ink-high", f"heat-{n}") for n in range(5, 10)],
    ("on-accent", "accent"),
    ("on-accent", "accent-hover"),
    ("on-accent", "danger-ink"),
    ("on-accent", "danger-hover"),
    ("accent", "accent-wash"),
    ("ink", "accent-wash"),
    ("ins-ink", "ins-wash"),
    ("del-ink", "del-wash"),
    ("mark-ink", "mark-wash"),
]
SHAPE_PAIRS = [
    *product(("control-edge", "focus", "series-baseline", "series-distilled"), ("paper", "sheet")),
    *[(f"{tone}-edge", "sheet") for tone in TONES],
    *[(f"topic-{n}", "sheet") for n in range(8)],
]


def token_colours(css: str, theme: str) -> dict[str, str]:
    """Hex colour of each `light-dark(#…, #…)` token of a block of CSS in one theme; others are left out."""
    found = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", css)
    return {name: light if theme == "light" else dark for name, light, dark in found}


def themes() -> Iterator[tuple[str, dict[str, str]]]:
    """Each palette a person can meet: light and dark, plain and with more contrast asked for."""
    plain, _, rest = (CSS / "tokens.css").read_text().partition("@media (prefers-contrast: more)")
    more = rest.partition("@media (forced-colors")[0]
    for theme in THEMES:
        yield theme, token_colours(plain, theme)
        yield f"{theme}, more contrast", token_colours(plain, theme) | token_colours(more, theme)


def test_high_contrast_is_the_same_whether_the_system_or_the_reader_asks_for_it() -> None:
    css = (CSS / "tokens.css").read_text()
    asked = css.partition("@media (prefers-contrast: more) {")[2].partition(":root {")[2].partition("}")[0]
    chosen = css.partition(':root[data-theme="contrast"] {')[2].partition("}")[0]
    assert asked.split() == chosen.split()
    assert len(chosen.split()) > 20


def luminance(colour: str) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2, "relative luminance")."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Contrast ratio, 1 to 21, whichever colour is the lighter (WCAG 2.2, "contrast ratio")."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(("pairs", "least"), [(TEXT_PAIRS, 4.5), (SHAPE_PAIRS, 3.0)], ids=["text", "shapes"])
def test_every_pair_is_readable_in_every_theme(pairs: list[tuple[str, str]], least: float) -> None:
    weak = [
        f"{theme}: {front} on {ground} is {ratio:.2f}"
        for theme, colours in themes()
        for front, ground in pairs
        if (ratio := contrast(colours[front], colours[ground])) < least
    ]
    assert not weak, "\n".join(weak)


def test_contrast_agrees_with_the_known_extremes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("path", sorted(CSS.glob("*.css")), ids=lambda path: path.name)
def test_only_tokens_names_colours_and_every_variable_exists(path: Path) -> None:
    css = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    if path.name != "tokens.css":
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[^{]*;)|\b(?:rgb|hsl|oklch)a?\(", css)
    known = set(re.findall(r"(--[\w-]+):", (CSS / "tokens.css").read_text() + css))
    assert set(re.findall(r"var\((--[\w-]+)", css)) <= known
