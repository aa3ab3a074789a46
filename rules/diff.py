"""What changed between two texts, word by word, and which of the changes are dangerous."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from pld_app.canonical import sha256_hex
from rules.hidden_text import Segment, reveal

type Op = Literal["equal", "insert", "delete"]
type Pair = tuple[Op, str]

# Every character is in exactly one token, so that joining tokens gives the text back.
_TOKEN = re.compile(r"\w+|\s|[^\w\s]")
_WORD = re.compile(r"\w+")

# Words that decide what is allowed; matched in lower case.
_POLARITY = re.compile(
    r"\b(?:not|no|never|none|neither|nor|cannot|without|unless|except|only|if|must|shall|should|may|might|can|could"
    r"|will|would|always|any|all|every|each|both|either|\w+n['\u2019]t)\b"
)
_NUMBER = re.compile(
    r"\d+(?:[.,:/-]\d+)*%?"
    r"|\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million"
    r"|billion|half|third|quarter|once|twice|first|second|days?|weeks?|months?|years?|january|february|march|april"
    r"|june|july|august|september|october|november|december)\b"
)
# Beyond this many words a comparison would be slow, and a highlight of little help.
_SHARED_MAX_WORDS = 1_500
_SHARED_MIN_WORDS = 4


def word_diff(before: str, after: str) -> list[Pair]:
    """The change as (op, text) pairs in reading order, op one of equal, insert, delete.

    Joining equal and delete gives `before`, joining equal and insert gives `after`, exactly. Neighbouring changed words
    are one pair: a lone space between two of them counts as changed, so that phrases read as phrases.
    """
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    matcher = SequenceMatcher(str.isspace, old, new, autojunk=False)
    pairs: list[Pair] = []
    removed = added = ""
    codes = matcher.get_opcodes()
    for index, (tag, i1, i2, j1, j2) in enumerate(codes):
        text = "".join(old[i1:i2])
        beside_a_swap = 0 < index < len(codes) - 1 and "replace" in {codes[index - 1][0], codes[index + 1][0]}
        if tag == "equal" and not (beside_a_swap and text.isspace()):
            pairs += _changed(removed, added)
            pairs.append(("equal", text))
            removed = added = ""
        else:
            removed += text
            added += "".join(new[j1:j2])
    return pairs + _changed(removed, added)


def _changed(removed: str, added: str) -> list[Pair]:
    pairs: list[Pair] = []
    if removed:
        pairs.append(("delete", removed))
    if added:
        pairs.append(("insert", added))
    return pairs


def diff_summary(pairs: Sequence[Pair]) -> str:
    """How many words were added and removed, in words."""
    added = sum(len(_WORD.findall(text)) for op, text in pairs if op == "insert")
    removed = sum(len(_WORD.findall(text)) for op, text in pairs if op == "delete")
    if not added and not removed:
        return _("Only punctuation or spacing changed") if any(op != "equal" for op, _text in pairs) else _("No change")
    parts = [
        ngettext("%(count)d word added", "%(count)d words added", added) % {"count": added},
        ngettext("%(count)d word removed", "%(count)d words removed", removed) % {"count": removed},
    ]
    return ", ".join(part for part, count in zip(parts, (added, removed), strict=True) if count)


@dataclass(frozen=True, slots=True)
class Risk:
    """A kind of change that is small to the eye and large in effect: what it took away and what it put in."""

    kind: Literal["polarity", "number", "label"]
    removed: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def message(self) -> str:
        title = {
            "polarity": _("A word that decides what is allowed changed"),
            "number": _("A number, date or period changed"),
            "label": _("The name of a label changed"),
        }[self.kind]
        return f"{title}: {self.change}."

    @property
    def change(self) -> str:
        parts = []
        if self.removed:
            parts.append(_("removed %(words)s") % {"words": _quoted(self.removed)})
        if self.added:
            parts.append(_("added %(words)s") % {"words": _quoted(self.added)})
        return ", ".join(parts)


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"“{word}”" for word in words)


def risky_changes(before: str, after: str, labels: Sequence[str]) -> list[Risk]:
    """The dangerous differences between two texts, at most one of each kind. A warning, never a refusal."""
    found = [
        _risk("polarity", _found(_POLARITY, before), _found(_POLARITY, after)),
        _risk("number", _found(_NUMBER, before), _found(_NUMBER, after)),
        _risk("label", _labels(before, labels), _labels(after, labels)),
    ]
    return [risk for risk in found if risk]


def risks_digest(risks: Sequence[Risk]) -> str:
    """A short name for a set of warnings, empty for none: a form says by it which ones its sender has read."""
    said = "|".join(risk.message for risk in risks)
    return sha256_hex(said)[:16] if said else ""


def _risk(kind: Literal["polarity", "number", "label"], before: Counter[str], after: Counter[str]) -> Risk | None:
    removed, added = tuple((before - after).elements()), tuple((after - before).elements())
    return Risk(kind, removed, added) if removed or added else None


def _found(pattern: re.Pattern[str], text: str) -> Counter[str]:
    return Counter(pattern.findall(text.lower()))


def _labels(text: str, labels: Sequence[str]) -> Counter[str]:
    counts = {label: len(re.findall(rf"(?<!\w){re.escape(label)}(?!\w)", text, re.IGNORECASE)) for label in labels}
    return Counter(counts)


def mark_shared(text: str, rule: str) -> list[Segment]:
    """The text in segments, the stretches of four or more words it shares with the rule marked `shared`."""
    words = list(_WORD.finditer(text))
    rule_words = [match.group().lower() for match in _WORD.finditer(rule)]
    if len(words) > _SHARED_MAX_WORDS or len(rule_words) > _SHARED_MAX_WORDS:
        return reveal(text)
    segments: list[Segment] = []
    position = 0
    for start, end in _shared_spans([match.group().lower() for match in words], rule_words):
        first, last = words[start].start(), words[end - 1].end()
        segments += reveal(text[position:first]) + reveal(text[first:last], shared=True)
        position = last
    return segments + reveal(text[position:])


def from_shared(segments: list[Segment], lead: int = 60) -> list[Segment]:
    """The text from shortly before its longest shared stretch, if that lies far in, after an ellipsis.

    `lead` is how many characters are kept before the stretch.
    """
    shared = [index for index, segment in enumerate(segments) if segment.shared]
    if not shared:
        return segments
    longest = max(shared, key=lambda index: len(segments[index].text))
    before = "".join(segment.text for segment in segments[:longest] if not segment.hidden)
    # A cut may not swallow an invisible character: it has to be seen.
    if len(before) <= 2 * lead or any(segment.hidden for segment in segments[:longest]):
        return segments
    kept = before[-lead:]
    return [Segment("… " + kept[kept.find(" ") + 1 :]), *segments[longest:]]


def _shared_spans(words: list[str], rule_words: list[str]) -> Iterator[tuple[int, int]]:
    for block in SequenceMatcher(None, words, rule_words, autojunk=False).get_matching_blocks():
        if block.size >= _SHARED_MIN_WORDS:
            yield block.a, block.a + block.size
