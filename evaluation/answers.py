"""What the student is asked and how its reply is read: prompt texts, answer schema, strict parser. Pure."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Never

from rules.manifest import prompt_frame

MAX_REPLY_CHARS = 2_000
MAX_REPLY_DEPTH = 4

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
# Servers tokenise a chat with its control tokens (`<|im_end|>`, `<start_of_turn>`, `[INST]`) alive, so a clause
# that spells one could open a turn of its own. An escaped first character means the same in JSON and is inert.
_CONTROL_START = re.compile(r"<|\[(?=/?[A-Z_]{3,}\])")
_PLACE = re.compile(r"\{\{ ?([^{}]{1,60}?) ?\}\}")
SHOTS_HEADING = "## Examples"


class AnswerProblem(StrEnum):
    """Why a reply is no answer."""

    EMPTY = "empty reply"
    TOO_LONG = "reply too long"
    TOO_DEEP = "JSON nested too deep"
    MALFORMED = "malformed JSON"
    DUPLICATE_KEY = "duplicate key"
    NOT_A_NUMBER = "NaN or Infinity, which JSON does not have"
    NOT_AN_OBJECT = "not a JSON object"
    MISSING_LABEL = "no label"
    EXTRA_FIELD = "unexpected field"
    UNKNOWN_LABEL = "unknown label"


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply as read: a `label`, a `problem`, or `abstained`; exactly one of them."""

    label: str | None
    problem: AnswerProblem | None
    abstained: bool = False


class _Refused(ValueError):
    def __init__(self, problem: AnswerProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


def answer_schema(labels: Sequence[str]) -> dict[str, object]:
    """JSON Schema of an answer, as strict structured output takes it. ValueError on no or repeated labels."""
    if not labels or len(set(labels)) != len(labels):
        raise ValueError("An answer schema needs at least one label, each named once.")
    return {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(labels)}},
        "required": ["label"],
        "additionalProperties": False,
    }


def parse_answer(raw: str, labels: Collection[str], abstention_label: str = "") -> Answer:
    """Read a reply that should be `{"label": <one of labels>}`. Never raises: a bad reply is a result too.

    `abstention_label`, if given, is an answer too, one that says no label.
    """
    known = {*labels, abstention_label} - {""}
    try:
        label = _label(_strict_json(raw), known)
        abstained = label == abstention_label
        return Answer(label=None if abstained else label, problem=None, abstained=abstained)
    except _Refused as refused:
        return Answer(label=None, problem=refused.problem)


def render_user_message(input_fields: Sequence[str], values: Mapping[str, str], template: str = "") -> str:
    """What the student is asked about one example: the task's input fields as one JSON object on one line, in the
    task's field order, or the template with each `{{field}}` filled in.

    In JSON, quoting keeps a clause in its string and disarms chat control tokens; a JSON reader gets the exact text
    back. In a template a control token is taken apart by a space. ValueError if a field is missing.
    """
    missing = [field for field in input_fields if field not in values]
    if missing:
        raise ValueError(f"The example has no field {', '.join(missing)}.")
    if template:
        # One pass: what a field says is never read as a place to fill in.
        filled = _PLACE.sub(lambda match: values.get(match.group(1), match.group()), template)
        return _CONTROL_START.sub(lambda match: f"{match.group()} ", filled)
    text = json.dumps({field: values[field] for field in input_fields}, ensure_ascii=False)
    return _CONTROL_START.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def template_problem(template: str, input_fields: Sequence[str]) -> str:
    """Why a template cannot be used, in words; empty when it can. Every field must stand in it."""
    places = _PLACE.findall(template)
    unknown = sorted(set(places) - set(input_fields))
    if unknown:
        return f"It names {', '.join(unknown)}, which is no input field of this task."
    missing = [field for field in input_fields if field not in places]
    if missing:
        return "It leaves out " + ", ".join("{{" + field + "}}" for field in missing) + "."
    return ""


def zero_shot_prompt(preamble: str, labels: Sequence[str], output_contract: str) -> str:
    """System prompt of the baseline: a release's prompt without any instruction."""
    return prompt_frame(preamble, labels, "", output_contract)


def few_shot_prompt(
    preamble: str, labels: Sequence[str], shots: Sequence[tuple[str, str]], output_contract: str
) -> str:
    """System prompt that shows examples in place of instructions; `shots` are (user message, label).

    They stand in the fixed part, so that a server computes them once. Each takes one line: a message of several lines
    is quoted as JSON, so that it cannot open a section.
    """
    lines = [SHOTS_HEADING]
    for message, label in shots:
        shown = message if len(message.splitlines()) == 1 else json.dumps(message, ensure_ascii=False)
        lines += [f"Input: {shown}", "Answer: " + json.dumps({"label": label}, ensure_ascii=False)]
    return prompt_frame(preamble, labels, "\n".join(lines), output_contract)


def cached_tokens(raw_reply: str) -> int | None:
    """Tokens of the prompt that the server says it had in its cache; None when it does not say.

    `prompt_tokens_details` is OpenAI's Chat Completions API, `input_tokens_details` its Responses API.
    """
    try:
        usage = json.loads(raw_reply).get("usage") or {}
        details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
        count = details.get("cached_tokens")
    except (ValueError, AttributeError, RecursionError):
        return None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 else None


def _strict_json(raw: str) -> object:
    if not raw.strip():
        raise _Refused(AnswerProblem.EMPTY)
    if len(raw) > MAX_REPLY_CHARS:
        raise _Refused(AnswerProblem.TOO_LONG)
    if _depth(raw) > MAX_REPLY_DEPTH:
        raise _Refused(AnswerProblem.TOO_DEEP)
    try:
        parsed: object = json.loads(raw, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except _Refused:
        raise
    except ValueError as error:
        raise _Refused(AnswerProblem.MALFORMED) from error
    return parsed


def _depth(raw: str) -> int:
    """Deepest nesting of brackets outside strings, found without recursion."""
    depth = deepest = 0
    for character in _JSON_STRING.sub("", raw):
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    return deepest


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Refused(AnswerProblem.DUPLICATE_KEY)
    return result


def _refuse_constant(_constant: str) -> Never:
    raise _Refused(AnswerProblem.NOT_A_NUMBER)


def _label(parsed: object, labels: Collection[str]) -> str:
    if not isinstance(parsed, dict):
        raise _Refused(AnswerProblem.NOT_AN_OBJECT)
    if "label" not in parsed:
        raise _Refused(AnswerProblem.MISSING_LABEL)
    if len(parsed) > 1:
        raise _Refused(AnswerProblem.EXTRA_FIELD)
    label = parsed["label"]
    if not isinstance(label, str) or label not in labels:
        raise _Refused(AnswerProblem.UNKNOWN_LABEL)
    return label
