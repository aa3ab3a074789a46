"""What the teacher thinks of the conflicts a run found, where the run asks for it: an opinion that nothing acts on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pld_app.canonical import sha256_hex
from pld_app.model_edge import Outcome
from pld_app.model_edge.ledger import RecordedCall
from rules.models import Conflict, ConflictJudgement, Instruction
from rules.prompts import conflict_mark, conflict_request
from rules.schemas import ConflictReply
from rules.services.mining_run import RunContext

if TYPE_CHECKING:
    # Only named here: what it needs of scikit-learn would slow the start of every process.
    from rules.mining.conflicts import Overlap

# A call each: the strongest come first, and people look at no more.
MAX_JUDGED = 100
_REASON_CHARS = 300

# (label, text) of the two candidates of an overlap, in its order.
type Pair = tuple[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Opinion:
    """Of one pair; `relation` is empty where it is not judged, and `reason` says why."""

    pair: Pair
    relation: str
    reason: str
    call_id: int | None = None


def opinions_ask(
    context: RunContext, overlaps: Sequence[Overlap], texts: Sequence[tuple[str, str]]
) -> dict[tuple[int, int], Opinion]:
    """The teacher's opinion of each conflict, by the numbers of its two candidates; `texts` are their (label, text).

    Empty unless the run asks for it and has a teacher. Call it outside a transaction; raises as other calls of a run.
    """
    teacher = context.run.teacher
    if teacher is None or not context.parameters.judge_conflicts:
        return {}
    pairs = {
        (one.first, one.second): (texts[one.first], texts[one.second]) for one in overlaps if one.kind == "conflict"
    }
    asked = list(pairs)[:MAX_JUDGED]
    late = f"Only the {MAX_JUDGED} strongest conflicts of a run are put to the teacher."
    found = {key: Opinion(pair, "", late) for key, pair in pairs.items()}
    found |= {key: Opinion(pairs[key], "", "The teacher was not asked.") for key in asked}
    preamble = context.run.task.preamble
    requests = (conflict_request(key=str(place), task=preamble, pair=pairs[key]) for place, key in enumerate(asked))
    for done, call in enumerate(context.calls(teacher, requests), 1):
        if call.outcome is not Outcome.CANCELLED:
            key = asked[int(call.request.key)]
            found[key] = _opinion(pairs[key], call)
        context.progress(done, len(asked))
    context.check_going_on()
    return found


def _opinion(pair: Pair, call: RecordedCall) -> Opinion:
    if not call.ok:
        return _not_judged(pair, f"The teacher did not answer: {call.error}", call)
    try:
        reply = ConflictReply.model_validate_json(call.text)
    except ValidationError:
        return _not_judged(pair, "The teacher's reply did not fit its schema.", call)
    if reply.item != conflict_mark(pair):
        return _not_judged(pair, "The teacher answered another question.", call)
    return Opinion(pair, reply.relation, reply.reason, call.call_id)


def _not_judged(pair: Pair, why: str, call: RecordedCall) -> Opinion:
    return Opinion(pair, "", why.replace("\0", "")[:_REASON_CHARS], call.call_id)


def opinions_write(
    conflicts: Mapping[tuple[int, int], Conflict],
    opinions: Mapping[tuple[int, int], Opinion],
    written: Mapping[int, Instruction],
    teacher: str,
) -> dict[str, object]:
    """Write the rows, `conflicts` by the numbers of their candidates. Figures for the run, if it asked."""
    if not opinions:
        return {}
    rows = []
    for key, one in opinions.items():
        conflict = conflicts[key]
        hashes = {written[number].pk: sha256_hex(text) for number, (_label, text) in zip(key, one.pair, strict=True)}
        rows.append(
            ConflictJudgement(
                conflict=conflict,
                relation=one.relation,
                reason=one.reason,
                teacher=teacher,
                call_id=one.call_id,
                first_sha256=hashes[conflict.first_id],
                second_sha256=hashes[conflict.second_id],
            )
        )
    ConflictJudgement.objects.bulk_create(rows)
    judged = sum(bool(one.relation) for one in opinions.values())
    return {"conflicts_judged": judged, "conflicts_not_judged": len(rows) - judged}
