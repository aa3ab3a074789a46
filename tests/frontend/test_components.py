"""The shared template parts: what they say, what they escape, and that no template carries inline code."""

import re
from pathlib import Path

import pytest
from django import forms
from django.core.paginator import Paginator
from django.template.loader import render_to_string
from django.test import RequestFactory

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
HOSTILE = '<script>alert("x")</script>'


class SampleForm(forms.Form):
    reason = forms.CharField(help_text="One sentence.")
    agree = forms.BooleanField(required=False)


def component(name: str, /, **context: object) -> str:
    return render_to_string(f"components/{name}.html", context)


@pytest.mark.parametrize(
    ("status", "tone"),
    [
        ("approved", "ok"),
        ("signed", "seal"),
        ("inactive", "idle"),
        ("valid", "ok"),
        ("invalid", "danger"),
        ("", "idle"),
    ],
)
def test_a_status_has_its_tone_and_only_an_exact_word_counts(status: str, tone: str) -> None:
    html = component("status_chip", status=status, text="Word")
    assert f"tone-{tone}" in html
    assert "Word" in html
    assert "<svg" in html


def test_part_of_a_known_status_is_not_that_status() -> None:
    assert "tone-idle" in component("status_chip", status="approv", text="?")


def test_text_from_outside_is_shown_as_text() -> None:
    parts = [
        component("status_chip", status="approved", text=HOSTILE),
        component("label_badge", label=HOSTILE, index=0),
        component("diff", pairs=[("equal", HOSTILE), ("insert", HOSTILE), ("delete", HOSTILE)], summary=HOSTILE),
        component("alert", tone="error", title=HOSTILE, text=HOSTILE),
        component("stat", name=HOSTILE, value=HOSTILE, source=HOSTILE),
        component("empty", title=HOSTILE, text=HOSTILE),
        component("progress", label=HOSTILE, value=1, max=2),
        component("hash", value=HOSTILE),
    ]
    assert all("<script" not in part for part in parts)
    assert all("&lt;script" in part or "&lt;scrip" in part for part in parts)


def test_a_diff_keeps_every_character_and_says_its_marks_aloud() -> None:
    html = component("diff", pairs=[("equal", "The party "), ("delete", "may"), ("insert", "must"), ("equal", " go.")])
    visible = re.sub(r'<span class="visually-hidden">.*?</span>|<[^>]+>', "", html).strip()
    assert visible == "The party maymust go."
    assert "removed:" in html
    assert "added:" in html


def test_a_figure_names_student_split_and_count() -> None:
    html = component("stat", name="Macro-F1", value="0.41", student="SmolLM2-135M", split="test", n=120)
    assert "SmolLM2-135M · test · n = 120" in html


def test_a_field_ties_its_help_and_error_to_the_control() -> None:
    html = component("field", field=SampleForm({"reason": ""})["reason"])
    described = re.search(r'aria-describedby="([^"]+)"', html)
    assert described
    assert all(f'id="{part}"' in html for part in described.group(1).split())
    assert 'aria-invalid="true"' in html


def test_pages_keep_the_filters_of_the_address() -> None:
    page = Paginator(range(60), 25).page(2)
    request = RequestFactory().get("/", {"status": "approved", "page": "2"})
    html = render_to_string("components/pagination.html", {"page": page}, request=request)
    assert "26 to 50 of 60" in html
    assert "status=approved&amp;page=3" in html


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_template_carries_inline_code_or_skips_escaping(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"\sstyle=|\son[a-z]+=[\"']|<style|javascript:", source)
    assert not re.search(r"<script(?![^>]*\ssrc=)", source)
    assert not re.search(r"\|\s*safe\b|autoescape off", source)
