"""What a person should look at in mined text: what it copies of its input, and what speaks to a model or a reviewer.

Nothing here blocks: a flag is shown beside the text. A name, amount, date or long quotation is a warning; a number
that is usually part of a rule ("within 30 days") is a hint.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

SPAN_WORDS = 8
_QUOTED_WORDS = 30


class FlagKind(StrEnum):
    NAME = "name"
    NUMBER = "number"
    SPAN = "span"
    INJECTION = "injection"


@dataclass(frozen=True, order=True)
class Flag:
    """`text` is what was found, `where` the part of the trace it stands in; `is_hint` for what rules often hold."""

    kind: FlagKind
    text: str
    where: str
    is_hint: bool = False

    def as_json(self) -> dict[str, str | int | bool]:
        return asdict(self) | {"kind": self.kind.value}


# A capital letter after an apostrophe or inside belongs to the word: O'Neil, McCarthy, GmbH.
_WORD = re.compile(r"[^\W_]+(?:(?:['\u2019&.-]|(?<=\d),(?=\d))[^\W_]+)*")
# Capitalised words that name no one: openings of rules, and the roles and papers of contracts.
_OPENINGS = """
a an and any are as at be but by for from if in is it its no nor not of on only or shall so such that the their then
there these this those to under unless until when where whenever whether which while who with within without answer
because can choose classify condition consider did do does has have label mark may must otherwise predict treat"""
_ROLES = """
affiliate affiliates agreement annex appendix article board business buyer client clause company confidential
consultant contract contractor customer date discloser disclosing effective employee employer exhibit information
licensee licensor materials parties party permitted purpose recipient receiving representative representatives
schedule section seller supplier term third vendor"""
_NO_NAMES = frozenset(f"{_OPENINGS} {_ROLES}".split())
_MONTH = (
    "january|february|march|april|may|june|july|august|september|october|november|december"
    "|jan|feb|mar|apr|jun|jul|aug|sep|oct|nov|dec"
)
_DATE = (
    rf"\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?(?:{_MONTH})\.?,?\s+\d{{4}}\b"
    rf"|\b(?:{_MONTH})\.?\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}\b|\b\d{{4}}-\d{{2}}-\d{{2}}\b"
    r"|\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b"
)
_CURRENCY = "$\u20ac\u00a3\u00a5"
_AMOUNT = rf"(?:[{_CURRENCY}]|\b(?:USD|EUR|GBP|CHF)\s?)\s?\d[\d,.']*\d?(?:\s?(?:million|billion|thousand))?\b"
_IN_WORDS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|eighteen"
    "|twenty|thirty|forty|sixty|ninety|hundred"
)
_UNIT = (
    r"(?:business\s+|calendar\s+|working\s+)?(?:day|week|month|quarter|year|hour|minute|time|copy|copie)s?"
    r"|%|percent|per\s+cent"
)
_FIGURE = r"\b\d[\d,.']*\d\b|\b\d\b"
_NUMBER = re.compile(
    rf"(?P<date>{_DATE})|(?P<amount>{_AMOUNT})"
    rf"|(?P<rule>(?:{_FIGURE}|\b(?:{_IN_WORDS})\b)\)?[\s-]*(?:{_UNIT}))|(?P<plain>{_FIGURE})",
    re.IGNORECASE,
)
_NUMBER_WORD = re.compile(rf"\b(?:{_IN_WORDS})\b", re.IGNORECASE)
_BEFORE_RULE = re.compile(
    r"(?:section|clause|article|paragraph|least|most|than|within|exceeds?|up to)\s*$", re.IGNORECASE
)
_RULE_DIGITS = 3

# One of these is in every text the pattern finds; looking for them first is a hundred times faster.
_SUSPICIOUS = (
    *("ignore", "disregard", "forget", "overrid", "bypass", "approv", "signator", "reviewer", "publish"),
    *("sign all", "sign e", "sign the", "sign thi", "<|", "<s", "</", "<<", "<i", "<u", "<a", "<e", "[inst", "[/inst"),
    *("system", "assistant", "developer", "are now", "act as", "new instruction", "new prompt", "reveal"),
    *("your prompt", "your instruction", "always a", "always o", "always r", "only answ", "only outp", "only re"),
)
_INJECTION = re.compile(
    r"(?P<text>"
    r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,30}\b(?:above|previous|prior|preceding|earlier|all)\b"
    r"(?:[^.\n]{0,30}\b(?:instructions?|rules?|prompts?|directions?|text|messages?)\b)?"
    r"|\b(?:ignore|disregard|forget|override)\s+(?:your|the|these|those)\s+(?:\w+\s+)?(?:instructions?|prompts?|rules)\b"
    r"|\b(?:approve|sign|publish)\s+(?:all|every|each|these|this|the)\s+(?:\w+\s+)?"
    r"(?:rules?|instructions?|candidates?|micro-rules?|rulesets?|releases?|drafts?|revisions?)\b"
    r"|\b(?:reviewer|approver|signatory)s?\b[^.\n]{0,40}\b(?:must|should|please)\b[^.\n]{0,20}\b(?:approve|sign|accept)\b"
    r"|\bplease\s+approve\b"
    r"|<\|?/?\s?(?:im_start|im_end|system|assistant|user|endoftext|eot_id|start_header_id|end_header_id)\s?\|?>"
    r"|\[/?INST\]|<</?SYS>>"
    r"|(?:^|\n)\s*(?:#{1,4}\s*)?(?:system|assistant|developer)\s*:"
    r"|\byou\s+are\s+now\s+(?:a|an|the|in)\b|\bact\s+as\s+(?:a|an|the)\s+(?:system|admin|assistant|model)\b"
    r"|\bnew\s+(?:system\s+)?(?:instructions?|prompt)\s*:"
    r"|\b(?:reveal|print|repeat|show)\b[^.\n]{0,20}\b(?:system\s+prompt|your\s+(?:prompt|instructions))\b"
    r"|\b(?:always|only)\s+(?:answer|output|reply|respond)\b"
    r")",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Vocabulary:
    """What the traces of a task have in common, and so identifies none of them.

    `words` (lower case): written in lower case somewhere, or found in many traces. `values`: texts of whole input
    fields that many traces share, such as a question asked of each document.
    """

    words: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()


def vocabulary(inputs: Iterable[Mapping[str, str]], *, often: int = 20) -> Vocabulary:
    """Words and values of these inputs (field to text); a capitalised word is common from `often` texts on."""
    lower: set[str] = set()
    seen: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for fields in inputs:
        # A word begins a sentence in capitals somewhere, so one lower-case use is what shows it to be no name.
        words = {word for text in fields.values() for word in _WORD.findall(text)}
        lower.update(word for word in words if word.islower())
        seen.update({word.lower() for word in words if not word.islower()})
        values.update(set(fields.values()))
    often_seen = {word for word, count in seen.items() if count >= often}
    shared = {value for value, count in values.items() if count >= often}
    return Vocabulary(frozenset(lower | often_seen), frozenset(shared))


def copied(
    instruction: str, inputs: Mapping[str, str], known: Vocabulary, *, labels: Collection[str] = ()
) -> list[Flag]:
    """What the instruction copies of its inputs (name of the part to text): names, numbers, spans of 8 words and more.

    Words and values of `known`, and the words of the labels, are nobody's. Each finding is listed once, by the first
    input that holds it.
    """
    allowed = known.words | _NO_NAMES | {word.lower() for label in labels for word in _WORD.findall(label)}
    found: dict[tuple[FlagKind, str], Flag] = {}
    for where, text in inputs.items():
        if text in known.values:
            continue
        for flag in (
            *_names(instruction, text, where, allowed),
            *_numbers(instruction, text, where),
            *_spans(instruction, text, where),
        ):
            found.setdefault((flag.kind, flag.text.lower()), flag)
    return sorted(found.values(), key=lambda flag: (flag.is_hint, flag.kind, flag.where, flag.text))


def _names(instruction: str, source: str, where: str, allowed: Collection[str]) -> Iterator[Flag]:
    """Runs of capitalised words that the source writes in capitals too."""
    capitals = {word.lower() for word in _WORD.findall(source) if word[0].isupper()}
    in_dates = [match.span() for match in _NUMBER.finditer(instruction) if match["date"]]
    run: list[re.Match[str]] = []
    for match in (*_WORD.finditer(instruction), None):
        word = match[0] if match else ""
        is_name = word[:1].isupper() and word.lower() in capitals and word.lower() not in allowed
        is_name = is_name and not any(start <= match.start() < end for start, end in in_dates if match)
        if is_name and match and (not run or instruction[run[-1].end() : match.start()].strip(" &") == ""):
            run.append(match)
            continue
        if run:
            yield Flag(FlagKind.NAME, instruction[run[0].start() : run[-1].end()], where)
        run = [match] if is_name and match else []


def _figures(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each number, amount and date with a form that ignores how it is punctuated."""
    for match in _NUMBER.finditer(text):
        yield match, re.sub(rf"[^\w%{_CURRENCY}]+", "", match[0].lower())


def _numbers(instruction: str, source: str, where: str) -> Iterator[Flag]:
    ours = list(_figures(instruction))
    if not ours:
        return
    in_source = {form for _match, form in _figures(source)}
    # "thirty (30) days" in the source is "30 days" too.
    plain = {re.sub(r"\D", "", match[0]) for match, _form in _figures(source)} - {""}
    in_words = {word.lower() for word in _NUMBER_WORD.findall(source)}
    for match, form in ours:
        digits = re.sub(r"\D", "", match[0])
        word = _NUMBER_WORD.match(match[0])
        same = digits in plain and match["amount"] is None and match["date"] is None
        if form in in_source or same or (word is not None and word[0].lower() in in_words):
            of_rule = match["rule"] or (
                match["plain"] and (_BEFORE_RULE.search(instruction[: match.start()]) or len(digits) < _RULE_DIGITS)
            )
            yield Flag(FlagKind.NUMBER, match[0].strip(" -"), where, is_hint=bool(of_rule))


def _spans(instruction: str, source: str, where: str) -> Iterator[Flag]:
    """The longest runs of at least SPAN_WORDS words that both share, whatever their case and punctuation."""
    matches = list(_WORD.finditer(instruction))
    words = [match[0].lower() for match in matches]
    theirs = [word.lower() for word in _WORD.findall(source)]
    starts = _starts(theirs, set(words))
    first = 0
    while first <= len(words) - SPAN_WORDS:
        places = starts.get(tuple(words[first : first + SPAN_WORDS]), ())
        length = max((_shared(words, first, theirs, place) for place in places), default=0)
        if length:
            last = min(first + length, first + _QUOTED_WORDS) - 1
            yield Flag(FlagKind.SPAN, instruction[matches[first].start() : matches[last].end()], where)
        first += max(length, 1)


def _starts(words: list[str], known: set[str]) -> dict[tuple[str, ...], list[int]]:
    """Where each run of SPAN_WORDS words of which all are known begins."""
    starts: dict[tuple[str, ...], list[int]] = {}
    run = 0
    for place, word in enumerate(words):
        run = run + 1 if word in known else 0
        if run >= SPAN_WORDS:
            first = place - SPAN_WORDS + 1
            starts.setdefault(tuple(words[first : place + 1]), []).append(first)
    return starts


def _shared(ours: list[str], first: int, theirs: list[str], place: int) -> int:
    length = 0
    for our, their in zip(ours[first:], theirs[place:], strict=False):
        if our != their:
            break
        length += 1
    return length


def injections(parts: Mapping[str, str]) -> list[Flag]:
    """What in these texts (name of the part to text) speaks to a model or a reviewer instead of about the matter."""
    found = {
        (where, match["text"].strip().lower()): Flag(FlagKind.INJECTION, match["text"].strip()[:120], where)
        for where, text in parts.items()
        if any(sign in lowered for lowered in (text.lower(),) for sign in _SUSPICIOUS)
        for match in _INJECTION.finditer(text)
    }
    return sorted(found.values())
