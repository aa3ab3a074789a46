"""A loop of conflict resolution as its pages show it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from django.core.paginator import Page, Paginator
from django.db.models import Count, QuerySet
from django.http import Http404
from django.urls import reverse
from django.utils.translation import gettext as _

from evaluation.figures_series import Level, LinePoint, LinesFigure, lines_figure
from evaluation.metrics import PairedComparison, compare_runs
from evaluation.models import (
    BASELINES,
    CaseRole,
    EvaluationRun,
    ResolutionCase,
    ResolutionGroup,
    ResolutionLoop,
    ResolutionRound,
)
from evaluation.schemas import RunFigures
from evaluation.selectors.runs import figures_of, run_list, source_of
from rules.hooks import Case, CaseSet
from rules.models import Instruction, ProposalStage, RunState, Task

PER_PAGE = 25
# Beside a rule there is room for a few.
CARD_FAILURES = 4
CARD_SUCCESSES = 2


def loop_list(task: Task) -> QuerySet[ResolutionLoop]:
    """The loops of a task, newest first, with `round_count`."""
    related = ("created_by", "ruleset", "student", "resolver")
    rows = task.resolution_loops.select_related(*related).defer("ruleset__prompt", "ruleset__manifest")
    return rows.annotate(round_count=Count("rounds")).order_by("-pk")


def loop_get(slug: str, number: int) -> ResolutionLoop:
    """The loop with what it names, or 404."""
    related = ("task", "ruleset", "dataset", "student", "resolver", "created_by")
    loop = ResolutionLoop.objects.select_related(*related).filter(task__slug=slug, number=number).first()
    if loop is None:
        raise Http404
    return loop


def group_get(slug: str, number: int, pk: int) -> ResolutionGroup:
    """A group of this loop with its texts and what came of it, or 404."""
    groups = _groups().filter(round__loop__task__slug=slug, round__loop__number=number)
    group = groups.select_related("round__loop__task", "round__run").filter(pk=pk).first()
    if group is None:
        raise Http404
    return group


@dataclass(frozen=True)
class RoundRow:
    """One round with its figures, if its run has any, and the change from the round before, answer by answer."""

    round: ResolutionRound
    figures: RunFigures | None
    change: PairedComparison | None
    groups: int


@dataclass(frozen=True)
class BaselineRow:
    """The newest baseline of one kind over the same examples."""

    run: EvaluationRun
    figures: RunFigures


@dataclass(frozen=True)
class Course:
    """What a loop has measured: rounds in order, baselines beside them, and both as a picture."""

    rounds: list[RoundRow]
    baselines: list[BaselineRow]
    figure: LinesFigure | None

    @property
    def measured(self) -> list[RoundRow]:
        return [row for row in self.rounds if row.figures is not None]

    @property
    def best(self) -> RoundRow | None:
        """The round with the highest macro-F1, the earlier of equals."""
        return max(self.measured, key=_macro_f1, default=None)


def _macro_f1(row: RoundRow) -> float:
    return row.figures.metrics.macro_f1 if row.figures else 0.0


def loop_course(loop: ResolutionLoop) -> Course:
    """Every round with its change from the one before; the answers of all rounds are read in one query."""
    rounds = list(loop.rounds.select_related("run", "run__ruleset", "run__release").annotate(n=Count("groups")))
    said = _answers([one.run for one in rounds])
    rows: list[RoundRow] = []
    for place, one in enumerate(rounds):
        before = said.get(rounds[place - 1].run_id) if place else None
        rows.append(RoundRow(one, figures_of(one.run), _change(before, said.get(one.run_id)), one.n))
    baselines = _baselines(rounds[0].run) if rounds else []
    return Course(rows, baselines, _figure([row for row in rows if row.figures], baselines))


type _Said = dict[int, tuple[str, str | None]]


def _answers(runs: Sequence[EvaluationRun]) -> dict[int, _Said]:
    """Gold label and answer by example, of each run that has figures."""
    done = [run.pk for run in runs if run.state == RunState.SUCCEEDED]
    found: dict[int, _Said] = {}
    if len(done) < 2:
        return found
    rows = EvaluationRun.objects.filter(pk__in=done, predictions__repeat=0)
    names = ("pk", "predictions__example_id", "predictions__gold", "predictions__label")
    for run, example, gold, label in rows.values_list(*names).iterator(chunk_size=2000):
        found.setdefault(run, {})[example] = (gold, label or None)
    return found


def _change(before: _Said | None, after: _Said | None) -> PairedComparison | None:
    if before is None or after is None:
        return None
    both = sorted(before.keys() & after.keys())
    return compare_runs(
        [after[key][0] for key in both], [before[key][1] for key in both], [after[key][1] for key in both]
    )


def _baselines(run: EvaluationRun) -> list[BaselineRow]:
    """Of each kind the newest over the same examples, by the same student where one was asked."""
    same = run_list(run.task).filter(
        kind__in=sorted(BASELINES), state=RunState.SUCCEEDED, examples_sha256=run.examples_sha256
    )
    found: dict[str, BaselineRow] = {}
    for one in same.order_by("-pk"):
        figures = figures_of(one)
        if figures and (one.student_id is None or one.student_model == run.student_model):
            found.setdefault(one.kind, BaselineRow(one, figures))
    return sorted(found.values(), key=lambda row: row.run.number)


def _figure(rows: Sequence[RoundRow], baselines: Sequence[BaselineRow]) -> LinesFigure | None:
    if not rows:
        return None
    points = []
    for row in rows:
        assert row.figures is not None
        metrics = row.figures.metrics
        name = _("Round %(n)d") % {"n": row.round.number}
        points.append(LinePoint(name, metrics.macro_f1, metrics.macro_f1_interval, source_of(row.round.run)))
    levels = [Level(row.run.prompt_name, row.figures.metrics.macro_f1) for row in baselines]
    return lines_figure(points, levels=levels, figure_id="rounds")


def _groups() -> QuerySet[ResolutionGroup]:
    return ResolutionGroup.objects.select_related(
        "instruction", "revision", "proposal__instruction", "proposal__dismissed_by", "candidate__current_revision"
    )


@dataclass(frozen=True)
class GroupRow:
    """A group as a list shows it: (gold, answer, how often) of its failures, and how far people are."""

    group: ResolutionGroup
    confusions: list[tuple[str, str, int]]
    failures: list[ResolutionCase]
    successes: list[ResolutionCase]
    stage: ProposalStage | None

    @property
    def waits(self) -> bool:
        return self.stage in {ProposalStage.WAITING, ProposalStage.IN_REVIEW}


def round_groups(round_: ResolutionRound, *, failures: int = 3, successes: int = 1) -> list[GroupRow]:
    """The groups of a round with their closest cases, the most failures first. Three queries."""
    groups = list(_groups().filter(round=round_).order_by("number"))
    counts = ResolutionCase.objects.filter(group__in=groups).exclude(role=CaseRole.RIGHT).order_by()
    confusions: dict[int, Counter[tuple[str, str]]] = {}
    for group, gold, said, n in counts.values_list("group", "example__label", "said").annotate(n=Count("pk")):
        confusions.setdefault(group, Counter())[gold, said] += n
    nearest = ResolutionCase.objects.filter(group__in=groups, rank__lte=max(failures, successes))
    cases: dict[int, list[ResolutionCase]] = {}
    for case in nearest.select_related("example", "trace").order_by("rank"):
        cases.setdefault(case.group_id, []).append(case)
    return [
        GroupRow(
            group,
            [(gold, said, n) for (gold, said), n in confusions.get(group.pk, Counter()).most_common()],
            [case for case in cases.get(group.pk, []) if case.is_failure][:failures],
            [case for case in cases.get(group.pk, []) if not case.is_failure][:successes],
            group_stage(group),
        )
        for group in groups
    ]


def group_stage(group: ResolutionGroup) -> ProposalStage | None:
    """How far people are with what came of the group; None where nothing did."""
    if group.proposal is not None:
        return group.proposal.stage
    if group.candidate is None:
        return None
    return ProposalStage.WAITING if group.candidate.is_open else ProposalStage.DECIDED


def group_cases(group: ResolutionGroup, kind: str, number: str | None) -> Page[ResolutionCase]:
    """25 cases, the closest first: failures, or with kind "right" successes."""
    cases = group.cases.select_related("example", "trace")
    rows = cases.filter(role=CaseRole.RIGHT) if kind == CaseRole.RIGHT else cases.exclude(role=CaseRole.RIGHT)
    return Paginator(rows.order_by("rank"), PER_PAGE).get_page(number)


def written_here(group: ResolutionGroup) -> list[Instruction]:
    """Instructions that reviewers wrote from this group."""
    rows = Instruction.objects.filter(task=group.round.loop.task_id, provenance__group_key=group.pk)
    return list(rows.select_related("current_revision").order_by("number"))


def instruction_cases(instruction: Instruction) -> CaseSet | None:
    """What a student last got wrong by an instruction, and right, for its card; None where no loop has measured it."""
    groups = ResolutionGroup.objects.filter(instruction=instruction).select_related("round__loop", "round__run")
    group = groups.order_by("-pk").first()
    if group is None:
        return None
    cases = group.cases.select_related("example")
    failures = cases.exclude(role=CaseRole.RIGHT).order_by("rank")[:CARD_FAILURES]
    successes = cases.filter(role=CaseRole.RIGHT).order_by("rank")[:CARD_SUCCESSES]
    cited = set(group.cited)
    loop = group.round.loop
    return CaseSet(
        title=_("Loop %(loop)d, round %(round)d: %(failures)d wrong, %(successes)d right")
        % {"loop": loop.number, "round": group.round.number, "failures": group.failures, "successes": group.successes},
        source=source_of(group.round.run).text,
        url=reverse("evaluation-loop-group", args=[instruction.task.slug, loop.number, group.pk]),
        cases=tuple(
            Case(
                name=case.example.external_id,
                inputs=tuple(case.example.fields),
                gold=case.example.label,
                said=case.said,
                is_right=not case.is_failure,
                why=str(case.get_role_display()),
                is_cited=case.example_id in cited,
            )
            for case in (*failures, *successes)
        ),
        is_of_present_text=group.revision_id == instruction.current_revision_id,
    )
