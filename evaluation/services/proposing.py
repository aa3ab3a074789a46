"""Asking the resolver about the groups of a round, and handing what it wrote to review."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from django.utils.translation import gettext as _

from evaluation.models import (
    CaseRole,
    Example,
    GroupOutcome,
    ResolutionCase,
    ResolutionGroup,
    ResolutionLoop,
    ResolutionRound,
)
from evaluation.resolver import (
    SHOWN_FAILURES,
    SHOWN_SUCCESSES,
    VERSION,
    Answer,
    Question,
    Shown,
    Unusable,
    answer_of,
    question_request,
)
from evaluation.services.loops import MOST_GROUPS
from pld_app.model_edge import CallRequest, Outcome
from pld_app.model_edge.ledger import RecordedCall, recorded_calls
from pld_app.models import Domain
from rules.mining.deidentify import Vocabulary
from rules.models import Task, TextProposal
from rules.services.mining_budget import RunBudget
from rules.services.mining_flags import proposal_flags, task_vocabulary
from rules.services.proposals import Added, CandidateText, Source, candidate_add, proposal_add


@dataclass(frozen=True)
class Said:
    """What came of asking about one group: a checked answer, or why there is none."""

    answer: Answer | None
    why_not: str
    call: RecordedCall | None


@dataclass(frozen=True)
class Written:
    """How many groups a round has, and what they led to."""

    groups: int
    proposals: int
    candidates: int


class Asker:
    """The questions of a round: one a group, the groups with most failures first."""

    def __init__(self, loop: ResolutionLoop, round_: ResolutionRound) -> None:
        self.loop = loop
        self.round = round_
        self.groups = list(round_.groups.select_related("instruction", "revision").order_by("number"))
        self.vocabulary: Vocabulary = task_vocabulary(loop.task)
        self.questions = {group.pk: self._question(group) for group in self.groups[:MOST_GROUPS]}

    def answers(self, should_stop: Callable[[], bool]) -> dict[int, Said]:
        """By group. Answered from the ledger where the loop has asked before; within its budget. Empty: no resolver."""
        if self.loop.resolver is None:
            return {}
        budget = RunBudget(self.loop.pk, ResolutionLoop)
        found = recorded_calls(
            self.loop.resolver,
            self._requests(),
            scope=self.loop.call_scope,
            should_stop=should_stop,
            budget=budget,
            run=str(self.loop),
        )
        said: dict[int, Said] = {}
        try:
            with closing(found):
                for recorded in found:
                    if recorded.outcome is not Outcome.CANCELLED:
                        key = int(recorded.request.key)
                        said[key] = _said(self.questions[key], recorded)
        finally:
            budget.flush()
        return said

    def _requests(self) -> Iterator[CallRequest]:
        for question in self.questions.values():
            yield question_request(question)

    def _question(self, group: ResolutionGroup) -> Question:
        cases = shown_cases(group)
        return Question(
            key=str(group.pk),
            task=self.loop.task.preamble,
            labels=tuple(self.loop.task.labels),
            label=group.instruction.label if group.instruction else "",
            text=group.revision.text if group.revision else "",
            examples=tuple(
                Shown(
                    id=f"E{number}",
                    example=case.example_id,
                    input={name: str(text) for name, text in case.example.input.items()},
                    gold=case.example.label,
                    said=case.said,
                    is_failure=case.is_failure,
                )
                for number, case in enumerate(cases, 1)
            ),
        )


def shown_cases(group: ResolutionGroup) -> list[ResolutionCase]:
    """What the resolver is shown of a group: the failures and successes closest to its instruction."""
    cases = group.cases.select_related("example")
    failures = cases.exclude(role=CaseRole.RIGHT).filter(rank__lte=SHOWN_FAILURES).order_by("rank")
    successes = cases.filter(role=CaseRole.RIGHT, rank__lte=SHOWN_SUCCESSES).order_by("rank")
    return [*failures, *successes]


def _said(question: Question, recorded: RecordedCall) -> Said:
    if not recorded.ok:
        return Said(None, _("The resolver did not answer: %(why)s") % {"why": recorded.error}, recorded)
    try:
        return Said(answer_of(question, recorded.text), "", recorded)
    except Unusable as unusable:
        return Said(None, str(unusable), recorded)


def outcomes_write(loop: ResolutionLoop, round_: ResolutionRound, asker: Asker, answers: Mapping[int, Said]) -> Written:
    """Write what came of every group, with its proposal or candidate, in the caller's transaction."""
    counts = {GroupOutcome.PROPOSED: 0, GroupOutcome.ADDED: 0}
    for group in asker.groups:
        _outcome(loop, round_, asker, group, answers.get(group.pk))
        group.save(update_fields=["outcome", "note", "cited", "call", "proposal", "candidate"])
        if group.outcome in counts:
            counts[GroupOutcome(group.outcome)] += 1
    return Written(len(asker.groups), counts[GroupOutcome.PROPOSED], counts[GroupOutcome.ADDED])


def _outcome(
    loop: ResolutionLoop, round_: ResolutionRound, asker: Asker, group: ResolutionGroup, said: Said | None
) -> None:
    if said is None:
        group.outcome = GroupOutcome.NOT_ASKED
        if loop.resolver is not None:
            group.note = _("Only the %(n)d groups with most failures are put to the resolver.") % {"n": MOST_GROUPS}
        return
    group.call_id = said.call.call_id if said.call else None
    if said.answer is None:
        group.outcome, group.note = GroupOutcome.UNUSABLE, _line(said.why_not)
        return
    group.cited, group.note = list(said.answer.cited), said.answer.reason
    if said.answer.action == "keep":
        group.outcome = GroupOutcome.KEPT
        return
    added = _added(loop, round_, asker, group, said)
    if added.row is None:
        group.outcome, group.note = GroupOutcome.UNUSABLE, _line(added.why_not)
    elif isinstance(added.row, TextProposal):
        group.outcome, group.proposal = GroupOutcome.PROPOSED, added.row
    else:
        group.outcome, group.candidate = GroupOutcome.ADDED, added.row


def _line(text: str) -> str:
    """Errors quote servers: one line without control characters, as long as the column."""
    return "".join(one if one.isprintable() else " " for one in text)[:400]


def _added(loop: ResolutionLoop, round_: ResolutionRound, asker: Asker, group: ResolutionGroup, said: Said) -> Added:
    answer = said.answer
    assert answer is not None
    cited = list(Example.objects.filter(pk__in=answer.cited).select_related("trace").order_by("position"))
    flags = proposal_flags(
        answer.text,
        inputs={example.external_id: example.input for example in cited},
        known=asker.vocabulary,
        labels=loop.task.labels,
    )
    source = Source(loop=loop.number, round=round_.number, resolver=loop.resolver_model)
    if answer.action == "revise":
        assert group.instruction_id is not None
        assert group.revision_id is not None
        return proposal_add(
            instruction_id=group.instruction_id,
            base_id=group.revision_id,
            text=answer.text,
            reason=answer.reason,
            flags=flags,
            source=source,
        )
    candidate = CandidateText(
        label=answer.label,
        text=answer.text,
        provenance=_provenance(loop, round_, group, said, cited),
        flags=flags,
        traces=[example.trace_id for example in cited if example.trace_id is not None],
        topic=group.instruction.topic if group.instruction else "",
        domain=group.instruction.domain if group.instruction else examples_domain(loop.task, cited),
        support=len(cited),
    )
    return candidate_add(task=loop.task, candidate=candidate)


def examples_domain(task: Task, examples: Sequence[Example]) -> str:
    """The domain most of the examples' traces name, where it is one reviewers work in."""
    named = Counter(
        str(example.trace.metadata.get(task.domain_field, "")) for example in examples if example.trace is not None
    )
    most = named.most_common(1)[0][0] if named else ""
    return most if task.domain_field and most in Domain.values else ""


def _provenance(
    loop: ResolutionLoop, round_: ResolutionRound, group: ResolutionGroup, said: Said, cited: Sequence[Example]
) -> dict[str, object]:
    call = said.call
    return {
        "loop": loop.number,
        "round": round_.number,
        "group": group.number,
        "split": round_.run.split,
        "student": loop.student_model,
        "resolver": loop.resolver_model,
        "prompt_version": VERSION,
        "why": said.answer.reason if said.answer else "",
        "beside": group.instruction.number if group.instruction else "",
        "cited": [example.external_id for example in cited],
        **(
            {"call": call.call_id, "model_returned": call.model_returned, "prompt_tokens": call.prompt_tokens}
            if call
            else {}
        ),
    }
