"""Characters a person cannot see. In a text someone answers for they are either refused or shown, never passed over."""

import re
import unicodedata
from dataclasses import dataclass

# Marks that are letters or spacing to Unicode and nothing to the eye.
_BLANK_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_READABLE_CONTROLS = frozenset("\n\t")
# Format, control, surrogate, private use, line and paragraph separators.
_HIDDEN_CATEGORIES = frozenset({"Cf", "Cc", "Cs", "Co", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text to show. `hidden` ones stand for one invisible character; `shared` ones are highlighted."""

    text: str
    hidden: bool = False
    shared: bool = False
    name: str = ""


# What counts as hidden although Python calls it printable: variation selectors and letters that are blank.
_PRINTABLE_HIDDEN = re.compile(f"[\ufe00-\ufe0f\u180b-\u180f\U000e0100-\U000e01ef{''.join(_BLANK_LETTERS)}]")


def _is_plain(text: str) -> bool:
    """Whether there is surely nothing hidden in it, told without looking at each character: nearly every text."""
    return text.replace("\n", "").replace("\t", "").isprintable() and not _PRINTABLE_HIDDEN.search(text)


def is_hidden(char: str) -> bool:
    """Whether this character changes a text without being seen: bidi marks, zero widths, tags, variation selectors."""
    if char in _READABLE_CONTROLS:
        return False
    code = ord(char)
    selector = 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or 0x180B <= code <= 0x180F
    return selector or char in _BLANK_LETTERS or unicodedata.category(char) in _HIDDEN_CATEGORIES


def code_point(char: str) -> str:
    """The character's number as people write it, for example U+202E."""
    return f"U+{ord(char):04X}"


def hidden_in(text: str) -> list[str]:
    """The distinct hidden characters of a text as code points, in order of first appearance."""
    if _is_plain(text):
        return []
    return list(dict.fromkeys(code_point(char) for char in text if is_hidden(char)))


def without_hidden(text: str) -> str:
    """The text with its hidden characters taken out."""
    return "".join(char for char in text if not is_hidden(char))


def spelled(text: str) -> str:
    """The text with each hidden character written out, for example as [U+202E]."""
    if _is_plain(text):
        return text
    return "".join(f"[{code_point(char)}]" if is_hidden(char) else char for char in text)


def reveal(text: str, *, shared: bool = False) -> list[Segment]:
    """The text cut into readable stretches and one segment for each hidden character, in order."""
    if _is_plain(text):
        return [Segment(text, shared=shared)] if text else []
    segments: list[Segment] = []
    start = 0
    for index, char in enumerate(text):
        if is_hidden(char):
            if start < index:
                segments.append(Segment(text[start:index], shared=shared))
            name = unicodedata.name(char, "control character").lower()
            segments.append(Segment(code_point(char), hidden=True, name=name))
            start = index + 1
    if start < len(text):
        segments.append(Segment(text[start:], shared=shared))
    return segments


def readable(text: str, limit: int) -> str:
    """At most `limit` characters, cut at a space where there is one, with an ellipsis when something was cut."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    cut = head.rfind(" ")
    return (head[:cut] if cut > limit // 2 else head).rstrip() + "…"
