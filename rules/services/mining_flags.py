"""Flags on what a run wrote: they inform the reviewer and decide nothing."""

from collections.abc import Iterable, Mapping, Sequence

from rules.mining.deidentify import FlagKind, Vocabulary, copied, injections, vocabulary
from rules.models import MicroRule, Split, Task, Trace

type FlagJson = dict[str, str | int | bool]

# Enough traces to tell a common word from a name.
_VOCABULARY_TRACES = 1000
MAX_FLAGS = 30
_THE_RULE = "instruction"


def task_vocabulary(task: Task) -> Vocabulary:
    """What the train traces of the task have in common, from the first 1,000 of them."""
    inputs = task.traces.filter(split=Split.TRAIN).order_by("pk").values_list("input", flat=True)
    return vocabulary(inputs[:_VOCABULARY_TRACES])


def rule_flags(trace: Trace, *, text: str, rationale: str, known: Vocabulary, labels: Sequence[str]) -> list[FlagJson]:
    """What a micro-rule copies of its trace, and what in trace and rule speaks to a model or a reviewer."""
    parts = {**trace.input, "rationale": rationale, _THE_RULE: text}
    return [flag.as_json() for flag in (*copied(text, trace.input, known, labels=labels), *injections(parts))]


def instruction_flags(
    text: str,
    *,
    cited: Sequence[MicroRule],
    shown: Iterable[MicroRule],
    known: Vocabulary,
    labels: Sequence[str],
) -> list[FlagJson]:
    """The flags of the text against the traces it cites, of the rules it cites, and injections in all evidence shown.

    Each carries its trace as `trace` (the id a person knows) and `trace_pk`; neither for one of the text alone.
    """
    found: list[FlagJson] = [flag.as_json() for flag in injections({_THE_RULE: text})]
    for rule in cited:
        found += _of_trace(rule, [flag.as_json() for flag in copied(text, rule.trace.input, known, labels=labels)])
        found += _of_trace(rule, rule.flags)
    for rule in shown:
        found += _of_trace(rule, [flag for flag in rule.flags if flag["kind"] == FlagKind.INJECTION])
    return _foremost(found)


def proposal_flags(
    text: str, *, inputs: Mapping[str, Mapping[str, str]], known: Vocabulary, labels: Sequence[str]
) -> list[FlagJson]:
    """The flags of a text that rests on examples (id to input fields), and injections in those; `where` names them."""
    found: list[FlagJson] = [flag.as_json() for flag in injections({_THE_RULE: text})]
    for name, fields in inputs.items():
        parts = {f"{name}: {where}": value for where, value in fields.items()}
        found += [flag.as_json() for flag in (*copied(text, parts, known, labels=labels), *injections(parts))]
    return _foremost(found)


def _foremost(found: Iterable[FlagJson]) -> list[FlagJson]:
    """Each once, what speaks to a model or a reviewer first, hints last; at most MAX_FLAGS."""
    unique = {(one["kind"], one["text"], one.get("trace", "")): one for one in reversed([*found])}
    ordered = sorted(unique.values(), key=lambda one: (one["kind"] != FlagKind.INJECTION, one["is_hint"]))
    return ordered[:MAX_FLAGS]


def _of_trace(rule: MicroRule, flags: Iterable[FlagJson]) -> list[FlagJson]:
    return [{**flag, "trace": rule.trace.external_id, "trace_pk": rule.trace_id} for flag in flags]
