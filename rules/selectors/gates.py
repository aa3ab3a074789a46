"""Gates: what is in force, how a ruleset stands under it, and what is due. The guards' own functions are asked, so that
a page and the database never disagree."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from rules.models import (
    ChannelName,
    GateException,
    GateName,
    GatePolicy,
    GateVerdict,
    PolicyVerdict,
    Release,
    Ruleset,
    Task,
)

NOTHING = "not_shown"


def gates_in_force(task: Task) -> GatePolicy | None:
    """The newest confirmed version, or None: no gate was ever set. As the database function pld_gate_policy."""
    confirmed = GatePolicy.objects.filter(task=task, decision__verdict=PolicyVerdict.CONFIRMED)
    return confirmed.select_related("student").order_by("-version").first()


@dataclass(frozen=True)
class GateState:
    """The gates in force (None: none), and the proposal that waits, if any."""

    in_force: GatePolicy | None
    proposed: GatePolicy | None


def gate_state(task: Task) -> GateState:
    waiting = GatePolicy.objects.filter(task=task, decision=None).select_related("proposed_by", "student")
    return GateState(gates_in_force(task), waiting.first())


def gate_history(task: Task) -> QuerySet[GatePolicy]:
    """Every version, newest first, with who proposed it and the word on it."""
    return (
        GatePolicy.objects.filter(task=task).select_related("proposed_by", "decision", "student").order_by("-version")
    )


@dataclass(frozen=True)
class GateRow:
    """One gate as a page shows it. Figures are numbers for showing; `outcome` is passed, failed or not_shown."""

    name: str
    label: str
    threshold: str
    outcome: str
    value: float | None
    low: float | None
    high: float | None
    why: str

    @property
    def words(self) -> str:
        return f"{self.name}: {self.label}" if self.label else self.name


@dataclass(frozen=True)
class Standing:
    """How a ruleset stands under the gates in force. `why_not` says what is missing where `passes` is False."""

    policy: GatePolicy
    verdict: GateVerdict | None
    rows: tuple[GateRow, ...]
    passes: bool
    why_not: str
    exception: GateException | None
    """One that has not expired, for its release."""


def standing(ruleset: Ruleset, policy: GatePolicy | None = None) -> Standing | None:
    """None where no gate is set. `policy`: the one in force, where the caller has it already."""
    policy = policy or gates_in_force(ruleset.task)
    if policy is None or not policy.has_gates:
        return None
    verdict = policy.verdicts.filter(ruleset=ruleset).order_by("-pk").first()
    passes = bool(_asked("SELECT pld_gates_pass(%s, %s)", [policy.pk, ruleset.pk]))
    return Standing(
        policy=policy,
        verdict=verdict,
        rows=_rows(policy, verdict),
        passes=passes,
        why_not="" if passes else _why_not(policy, verdict),
        exception=valid_exception(policy, ruleset),
    )


def valid_exception(policy: GatePolicy, ruleset: Ruleset) -> GateException | None:
    """The one that expires last, if it has not yet."""
    found = policy.exceptions.filter(release__ruleset=ruleset, expires_at__gt=timezone.now())
    return found.order_by("-expires_at").first()


def _asked(query: str, values: list[Any]) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]


def _rows(policy: GatePolicy, verdict: GateVerdict | None) -> tuple[GateRow, ...]:
    found = {(one["gate"], one["label"]): one for one in verdict.results} if verdict else {}
    empty = {"outcome": NOTHING, "why": _("No finished evaluation says anything about it yet.")}
    return tuple(
        _row(gate, label, threshold, found.get((gate, label), empty)) for gate, label, threshold in policy.thresholds
    )


def _row(gate: str, label: str, threshold: str, result: dict[str, Any]) -> GateRow:
    numbers = {name: float(result[name]) if result.get(name) else None for name in ("value", "low", "high")}
    return GateRow(
        name=str(GateName(gate).label),
        label=label,
        threshold=threshold,
        outcome=result["outcome"],
        why=result["why"],
        **numbers,
    )


def _why_not(policy: GatePolicy, verdict: GateVerdict | None) -> str:
    if verdict is None:
        return _("Nothing is shown yet: evaluate it on the dataset, split and student of the gates.")
    if not verdict.passed:
        return _("Its newest evaluation does not pass every gate.")
    if policy.student is not None and verdict.student_model != policy.student.model:
        return _(
            "The student's model has changed from %(old)s to %(new)s since it was evaluated: evaluate it again."
        ) % {
            "old": verdict.student_model,
            "new": policy.student.model,
        }
    return _("Production serves another release than the one it was compared with: evaluate it again.")


def gates_asked(policy: GatePolicy | None, channel: str) -> bool:
    """Whether publishing to this channel asks for the gates at all."""
    return policy is not None and (channel == ChannelName.PRODUCTION or policy.staging_too)


@dataclass(frozen=True)
class Validation:
    """When the release in production is due for re-validation, and until when another one may still be published."""

    due: datetime
    blocked_from: datetime

    @property
    def is_overdue(self) -> bool:
        return timezone.now() > self.due

    @property
    def is_blocked(self) -> bool:
        return timezone.now() > self.blocked_from


def validation(task: Task, policy: GatePolicy | None) -> Validation | None:
    """None where no date of re-validation is set, or production serves nothing."""
    if policy is None or policy.revalidate_days is None:
        return None
    due: datetime | None = _asked("SELECT pld_validation_due(%s)", [task.pk])
    return Validation(due, due + timedelta(days=policy.grace_days)) if due is not None else None


def publish_refusal(release: Release, channel: str) -> str:
    """Why the gates forbid publishing this release to this channel, with what to do next; empty: they do not."""
    policy = gates_in_force(release.task)
    if policy is None or not gates_asked(policy, channel) or valid_exception(policy, release.ruleset) is not None:
        return ""
    how = standing(release.ruleset, policy)
    if how is not None and not how.passes:
        advice = _(
            "Evaluate it, or let a signatory without a hand in it sign an exception, both on the release's page."
        )
        return f"{_('%(gates)s stand against it.') % {'gates': policy}} {how.why_not} {advice}"
    due = validation(release.task, policy)
    served = _asked("SELECT pld_served_release(%s, 'production')", [release.task_id])
    if channel == ChannelName.PRODUCTION and due is not None and due.is_blocked and served != release.pk:
        return _(
            "The release in production was due for re-validation on %(date)s, and the grace is over: re-evaluate that "
            "one first, or sign an exception."
        ) % {"date": f"{due.due:%Y-%m-%d}"}
    return ""
