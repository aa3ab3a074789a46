"""Reading a micro-rule's words: its label phrase, its condition, its stemmed content words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

_VERBS = r"(?:label|mark|classify|answer|choose|predict|output|assign)(?:s|ed|led|ing)?"
_LEAD = rf"(?:\bthen\s+)?\b{_VERBS}\b(?:\s+(?:it|this|the\s+\w+))?(?:\s+as)?\s+"
_QUOTED = r"[\"'\u2018\u201c][^\"'\u2018\u2019\u201c\u201d]{1,40}[\"'\u2019\u201d]"
_CAPITALISED = r"(?-i:[A-Z][\w-]*(?:\s[A-Z][\w-]*)*)"
_WORD = re.compile(r"[^\W\d_]\w+")
_OPENING = re.compile(r"^(?:if|when|where|whenever)\s+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.;!?](?:\s|$)")
_MIN_STEM = 4
# Longest first. Inflections only: deeper stemming made unlike words meet and was no better on the real traces.
_SUFFIXES = ("ations", "ation", "ments", "ment", "ings", "edly", "ing", "ies", "ed", "es", "ly", "s")
_LONGEST_CONDITION = 300


def label_phrase(labels: Sequence[str]) -> re.Pattern[str]:
    """Pattern of "then label X". X is one of `labels`, or any quoted or capitalised name where none is given."""
    names = [re.escape(label) for label in sorted(labels, key=len, reverse=True) if label]
    named = rf"[\"'\u2018\u201c]?(?:{'|'.join(names)})(?!\w)[\"'\u2019\u201d]?"
    target = named if names else rf"(?:{_QUOTED}|{_CAPITALISED})"
    return re.compile(_LEAD + target, re.IGNORECASE)


def without_label_phrase(text: str, phrase: re.Pattern[str]) -> str:
    """The text without its label phrases, so that micro-rules of one topic lie close whatever their label."""
    return phrase.sub(" ", text)


def stem(word: str) -> str:
    """A lower-case English word without one inflection, at least 4 letters long."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= _MIN_STEM:
            return word[: -len(suffix)]
    return word


def content_words(text: str) -> list[str]:
    """Lower-case words of two letters or more in text order, English stop words and numbers left out."""
    return [word for word in _WORD.findall(text.lower()) if word not in ENGLISH_STOP_WORDS]


def stems(text: str) -> list[str]:
    """Stems of the content words, in text order."""
    return [stem(word) for word in content_words(text)]


def condition(text: str, phrase: re.Pattern[str]) -> str:
    """When the micro-rule applies: the part before its label phrase, else its first sentence; without "If".

    At most 300 characters and an ellipsis.
    """
    found = phrase.search(text)
    part = text[: found.start()] if found and found.start() > 0 else _first_sentence(text)
    part = " ".join(part.split()).rstrip(" ,;:.-")
    part = _OPENING.sub("", part)
    return part if len(part) <= _LONGEST_CONDITION else part[:_LONGEST_CONDITION].rsplit(" ", 1)[0] + "…"


def _first_sentence(text: str) -> str:
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end else text
