"""The report a month on how well each task was reviewed, and the pause of whoever fell below the policy's limits."""

from datetime import UTC, date, datetime

from django.db import transaction
from django.db.models.functions import TruncMonth
from django.urls import reverse
from django.utils.translation import gettext_lazy

from pld_app.audit import Json, audit_record
from pld_app.canonical import canonical_json, sha256_hex
from pld_app.models import Role, User
from pld_app.notifications import kind_register, notify
from rules.models import JudgementContext, OversightReport, PauseReason, ReviewPolicy, Task
from rules.oversight import row_of
from rules.selectors.quality import Period, Quality, facts_of, quality_by_person, quality_of_task
from rules.selectors.review_policy import policy_of
from rules.services.attention import pause_open

kind_register(
    "oversight.report",
    label=gettext_lazy("The oversight report of a month is there"),
    text=gettext_lazy("How %(task)s was reviewed in %(month)s: the report is there."),
)
# Of fewer a share says too little to stop anybody.
JUDGED_FROM = 10


def month_after(month: date) -> date:
    """The first day of the month that follows."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def period_of(month: date) -> Period:
    """The month from its first moment to that of the next, UTC."""
    start, end = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (month, month_after(month)))
    return Period(start, end)


def reports_make_due(*, today: date) -> int:
    """Make the report of every month that is over, had judgements and has none; how many were made.

    Whenever it runs: a server that was off at the turn of a month, or for three, loses none.
    """
    over = JudgementContext.objects.filter(at__lt=period_of(today.replace(day=1)).start)
    months = over.annotate(month=TruncMonth("at", tzinfo=UTC)).order_by("instruction__task", "month")
    judged = months.values_list("instruction__task", "month").distinct()
    made = set(OversightReport.objects.values_list("task", "month"))
    due = [(task, at.date()) for task, at in judged if (task, at.date()) not in made]
    return sum(report_make(task_id=task, month=month) is not None for task, month in due)


@transaction.atomic
def report_make(*, task_id: int, month: date) -> OversightReport | None:
    """Make the report of a month (its first day), tell leads and those it is about, and pause whom the policy says.

    None where there is one already: of two who begin at once, one makes it.
    """
    # Lock first: the second waits here and then finds the report.
    task = Task.objects.select_for_update(of=("self",)).get(pk=task_id)
    if OversightReport.objects.filter(task=task, month=month).exists():
        return None
    facts = facts_of(task, within=period_of(month))
    people = [one for one in quality_by_person(facts) if one.is_measured]
    rows = [row_of(quality_of_task(facts)), *(row_of(one) for one in people)]
    digest = sha256_hex(canonical_json(rows))
    data: dict[str, Json] = {"month": f"{month:%Y-%m}", "people": len(people), "rows_sha256": digest}
    event = audit_record("oversight_report.made", actor=None, subject=task, task_slug=task.slug, data=data)
    report = OversightReport.objects.create(task=task, month=month, rows=rows, rows_sha256=digest, event=event)
    watchers = User.objects.filter(role__in=[Role.ADMIN, Role.AUDITOR], is_active=True)
    named = User.objects.filter(pk__in=[one.user_id for one in people], is_active=True, role=Role.REVIEWER)
    url = reverse("oversight-report", args=[task.slug, f"{month:%Y-%m}"])
    notify([*watchers, *named], "oversight.report", url=url, task=task.name, month=f"{month:%Y-%m}")
    policy = policy_of(task)
    for one in people:
        reason = pause_reason(policy, one)
        person = next((user for user in named if user.pk == one.user_id), None)
        if reason is not None and person is not None:
            pause_open(task=task, user=person, reason=reason)
    return report


def pause_reason(policy: ReviewPolicy, one: Quality) -> PauseReason | None:
    """Why a month's figures stop this person's queue; None where they do not, or rest on fewer than 10.

    The share itself is compared, not an end of its interval: a pause asks for a talk; its note says what came of it.
    """
    caught, overturned = one.seeds_caught, one.overturned
    if caught.value is not None and caught.n >= JUDGED_FROM and 100 * caught.value < policy.recall_percent:
        return PauseReason.RECALL
    limit = policy.overturned_percent
    if limit and overturned.value is not None and overturned.n >= JUDGED_FROM and 100 * overturned.value > limit:
        return PauseReason.OVERTURNED
    return None
