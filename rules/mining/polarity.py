"""Which words of a condition are said of the case, and which are said not to hold.

After NegEx (Chapman et al. 2001): a negating word reaches forward to the end of its part of the sentence, at most 12
words; words such as "barred" or "omitted" reach backward as well ("copying is barred"). Two negations cancel. English.
"""

from __future__ import annotations

import re

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from rules.mining.wording import stem

# Letters kept of a stem: "necessary" then meets "necessity", which cutting off endings alone would miss.
_STEM = 6
_REACH = 12
_APOSTROPHES = "'\u2019"
_TOKEN = re.compile(rf"[^\W\d_]+(?:[{_APOSTROPHES}]t\b)?|[,;:.()]")
_FORWARD = frozenset(
    {"not", "no", "never", "none", "neither", "nor", "nowhere", "nothing", "nobody", "cannot", "without", "rather"}
    | {"omit", "omits", "omitting", "lack", "lacks", "lacking"}
)
_BOTH_WAYS = frozenset(
    {"bar", "bars", "barred", "ban", "bans", "banned", "forbid", "forbids", "forbidden", "forbidding"}
    | {"prohibit", "prohibits", "prohibited", "absent", "omitted", "missing"}
)
# Where a part of the sentence ends. "or" does not end it: "no fax or e-mail" denies both.
_ENDS = frozenset(
    {",", ";", ":", ".", "(", ")", "but", "yet", "although", "though", "while", "and", "except", "unless", "exception"}
)


def polar_stems(text: str) -> list[tuple[str, bool]]:
    """(six letters of the stem, is it denied) of each content word, in text order; negating words are left out."""
    tokens = _TOKEN.findall(text.lower())
    denied = [False] * len(tokens)
    for place, token in enumerate(tokens):
        if _negates(token):
            for other in _reached(tokens, range(place + 1, min(len(tokens), place + 1 + _REACH))):
                denied[other] = not denied[other]
        if token in _BOTH_WAYS:
            for other in _reached(tokens, range(place - 1, max(-1, place - 1 - _REACH), -1)):
                denied[other] = not denied[other]
    return [(stem(token)[:_STEM], deny) for token, deny in zip(tokens, denied, strict=True) if _is_content(token)]


def _negates(token: str) -> bool:
    return token in _FORWARD or token in _BOTH_WAYS or token.endswith(("n't", "n\u2019t"))


def _reached(tokens: list[str], places: range) -> list[int]:
    found = []
    for place in places:
        if tokens[place] in _ENDS:
            break
        found.append(place)
    return found


def _is_content(token: str) -> bool:
    return len(token) > 1 and token[0].isalpha() and token not in ENGLISH_STOP_WORDS and not _negates(token)
