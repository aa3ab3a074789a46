"""Small, documented ways to make a wrong rule out of a right one: what a careful reviewer must catch.

Each takes the text of a rule and gives (wrong text, what was done), or None where it does not apply. English, as the
sample tasks are; a text in another language is left alone rather than broken at random.
"""

import re

_FLIPS = (
    (r"\bmust not\b", "must"),
    (r"\bmay not\b", "may"),
    (r"\bcannot\b", "can"),
    (r"\bdoes not\b", "does"),
    (r"\bis not\b", "is"),
    (r"\bare not\b", "are"),
    (r"\bprohibited\b", "permitted"),
    (r"\bprohibits\b", "permits"),
    (r"\bforbidden\b", "allowed"),
    (r"\bwithout\b", "with"),
    (r"\bpermitted\b", "prohibited"),
    (r"\bpermits\b", "prohibits"),
    (r"\ballowed\b", "forbidden"),
    (r"\ballows\b", "forbids"),
    (r"\bmust\b", "must not"),
    (r"\bmay\b", "may not"),
    (r"\brequires\b", "does not require"),
    (r"\bincludes\b", "excludes"),
    (r"\bis\b", "is not"),
    (r"\bare\b", "are not"),
)
_NUMBER_WORDS = {
    "one": "three",
    "two": "six",
    "three": "nine",
    "four": "ten",
    "five": "two",
    "six": "twelve",
    "seven": "fourteen",
    "eight": "three",
    "nine": "thirty",
    "ten": "five",
    "twelve": "six",
    "fifteen": "thirty",
    "twenty": "sixty",
    "thirty": "ninety",
    "forty": "fifteen",
    "sixty": "thirty",
    "ninety": "thirty",
}
# A condition that narrows a rule, from its word to the end of its part of the sentence.
_NARROWS = (
    r",? unless [^,.;]+",
    r",? except [^,.;]+",
    r",? provided that [^,.;]+",
    r",? but only [^,.;]+",
    r" and [^,.;]+(?=, (?:then|label|answer)\b)",
    r" (?:in writing|expressly|explicitly|solely|only)\b",
)


def polarity_flipped(text: str) -> tuple[str, str] | None:
    """Turn the first permission, duty or negation into its opposite."""
    for pattern, other in _FLIPS:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            put = other.capitalize() if found.group(0)[0].isupper() else other
            return text[: found.start()] + put + text[found.end() :], f"“{found.group(0)}” became “{put}”."
    return None


def threshold_altered(text: str) -> tuple[str, str] | None:
    """Double the first number, or exchange the first number word."""
    found = re.search(r"\d+", text)
    if found:
        put = str(int(found.group(0)) * 2 or 1)
    else:
        found = re.search(rf"\b({'|'.join(_NUMBER_WORDS)})\b", text, re.IGNORECASE)
        if not found:
            return None
        put = _NUMBER_WORDS[found.group(0).lower()]
    return text[: found.start()] + put + text[found.end() :], f"“{found.group(0)}” became “{put}”."


def scope_widened(text: str) -> tuple[str, str] | None:
    """Leave out the first condition that narrows the rule."""
    for pattern in _NARROWS:
        found = re.search(pattern, text, re.IGNORECASE)
        if found:
            wider = (text[: found.start()] + text[found.end() :]).strip()
            return wider, f"“{found.group(0).strip(' ,')}” was left out."
    return None


def label_contradicted(text: str, label: str, other: str) -> tuple[str, str] | None:
    """Let the same condition lead to another label."""
    found = re.search(rf"(?<!\w){re.escape(label)}(?!\w)", text)
    if not found or label == other:
        return None
    return text[: found.start()] + other + text[found.end() :], f"It led to “{label}” and now leads to “{other}”."
