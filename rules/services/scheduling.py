"""Publishing at a time to come: proved now, checked again in full when the time is there, once, or not at all."""

from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, Refusal
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.models import Reauthentication, Role, User
from pld_app.notifications import kind_register, notify
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import InvalidTransition, Stale
from rules.hooks import publish_objections
from rules.models import (
    ChannelName,
    Publication,
    PublicationKind,
    Release,
    RulesetStatus,
    ScheduledPublication,
    ScheduleEnd,
    ScheduleEndKind,
    Task,
)
from rules.selectors import publishing as selectors
from rules.selectors.gates import publish_refusal
from rules.selectors.rulesets import ruleset_manifest, signature_state
from rules.services.announcing import announced, served_now, tell
from rules.services.refusals import database_refusals
from rules.services.stopping import server_time

JOB_KIND = "schedule.publish"
END_JOB_KIND = "schedule.until"

kind_register(
    "schedule.failed",
    label=gettext_lazy("A scheduled publication did not happen"),
    text=gettext_lazy("%(release)s of %(task)s was not published to %(channel)s: %(why)s"),
)


def publication_schedule(
    *,
    release_id: int,
    channel: str,
    actor: User,
    proof: Proof,
    effective_from: datetime,
    until: datetime | None = None,
    allow_moved: bool = False,
    expected_newest: int = 0,
    reason: str = "",
) -> ScheduledPublication:
    """Plan a publication for `effective_from` (aware UTC), optionally ending by itself at `until`.

    Raises InvalidInput for times that do not fit, Stale when the channel moved, NotAllowed for anyone but a signatory.
    """
    require_role(actor, Role.SIGNATORY)
    if channel not in ChannelName.values:
        raise InvalidInput(_("There is no such channel."))
    if effective_from <= server_time():
        raise InvalidInput(_("Choose a time to come, or publish now."))
    if until is not None and until <= effective_from:
        raise InvalidInput(_("It must end after it starts."))
    release = Release.objects.select_related("task").get(pk=release_id)
    _require_seen(release.task, channel, expected_newest)
    proved = reauthenticate(
        actor=actor,
        proof=proof,
        purpose="schedule",
        subject=release,
        content_sha256=release.manifest_sha256,
        task_slug=release.task.slug,
    )
    plan = ScheduledPublication(
        task=release.task,
        channel=channel,
        release=release,
        effective_from=effective_from,
        until=until,
        allow_moved=allow_moved,
        expected_newest=expected_newest,
        actor=actor,
        actor_name=str(actor),
        actor_role=actor.role,
        reason=reason.strip()[:300],
    )
    return _schedule(plan, proved)


def _require_seen(task: Task, channel: str, expected: int) -> None:
    newest = task.publications.filter(channel=channel).order_by("-pk").values_list("pk", flat=True).first() or 0
    if newest != expected:
        raise Stale(_("This channel moved since you opened the page. Look at what it serves now and repeat."))


@database_refusals()
@transaction.atomic
def _schedule(plan: ScheduledPublication, proved: Reauthentication) -> ScheduledPublication:
    task = Task.objects.select_for_update().get(pk=plan.task_id)
    _require_seen(task, plan.channel, plan.expected_newest)
    data: dict[str, Json] = {
        "channel": plan.channel,
        "version": plan.release.version,
        "effective_from": plan.effective_from.isoformat(),
        "until": plan.until.isoformat() if plan.until else None,
        "allow_moved": plan.allow_moved,
        "method": proved.method,
    }
    plan.reauthentication = proved
    plan.event = audit_record(
        "release.scheduled", actor=plan.actor, subject=plan.release, task_slug=task.slug, data=data
    )
    plan.save()
    job_enqueue(kind=JOB_KIND, subject_id=plan.pk, key=f"{JOB_KIND}:{plan.pk}", run_after=plan.effective_from)
    return plan


def schedule_cancel(*, schedule_id: int, actor: User, reason: str) -> ScheduleEnd:
    """Take a schedule back before its time. It takes no proof, since it changes nothing that is served."""
    require_role(actor, Role.SIGNATORY)
    if not reason.strip():
        raise InvalidInput(_("Say why you cancel it."))
    plan = ScheduledPublication.objects.select_related("release").get(pk=schedule_id)
    return _end(plan, ScheduleEndKind.CANCELLED, actor, reason.strip()[:300])


@database_refusals()
@transaction.atomic
def _end(plan: ScheduledPublication, kind: ScheduleEndKind, actor: User | None, reason: str) -> ScheduleEnd:
    task = Task.objects.select_for_update().get(pk=plan.task_id)
    if _is_settled(plan):
        raise InvalidTransition(_("This schedule was published, cancelled or given up already. Reload to see it."))
    data: dict[str, Json] = {"schedule": plan.pk, "channel": plan.channel, "reason": reason}
    event = audit_record(f"release.schedule_{kind}", actor=actor, subject=plan.release, task_slug=task.slug, data=data)
    return ScheduleEnd.objects.create(
        schedule=plan, kind=kind, actor=actor, actor_name=str(actor) if actor else "", reason=reason, event=event
    )


def _is_settled(plan: ScheduledPublication) -> bool:
    return ScheduleEnd.objects.filter(schedule=plan).exists() or Publication.objects.filter(schedule=plan).exists()


def schedule_run(schedule_id: int, lease: Lease) -> JobResult:
    """Publish a schedule whose time has come, or give it up with the reason; a repeated call changes nothing."""
    plan = ScheduledPublication.objects.select_related("task", "release__ruleset", "actor").get(pk=schedule_id)
    if plan.effective_from > server_time():
        raise PutOff(plan.effective_from, "Its time has not come.")
    if _is_settled(plan):
        return JobResult.DONE
    try:
        _go_live(plan, lease)
    except Refusal as refusal:
        _give_up(plan, lease, str(refusal.user_message))
    return JobResult.DONE


@database_refusals()
@transaction.atomic
def _go_live(plan: ScheduledPublication, lease: Lease) -> None:
    task = Task.objects.select_for_update().get(pk=plan.task_id)
    lease.check()
    if _is_settled(plan):
        return
    release = plan.release
    _require_sound(plan)
    before = selectors.current_publication(task.pk, plan.channel)
    data: dict[str, Json] = {
        "channel": plan.channel,
        "version": release.version,
        "prompt_sha256": release.prompt_sha256,
        "before": before.release.version if before else None,
        "schedule": plan.pk,
        "reason": plan.reason,
    }
    with announced(task, "published"):
        event = audit_record("release.published", actor=plan.actor, subject=release, task_slug=task.slug, data=data)
        Publication.objects.create(
            task=task,
            channel=plan.channel,
            release=release,
            kind=PublicationKind.PUBLISH,
            reason=plan.reason,
            actor=plan.actor,
            actor_name=plan.actor_name,
            authenticated_at=server_time(),
            until=plan.until,
            schedule=plan,
            event=event,
        )
    if plan.until is not None:
        job_enqueue(kind=END_JOB_KIND, subject_id=plan.pk, key=f"{END_JOB_KIND}:{plan.pk}", run_after=plan.until)


def _require_sound(plan: ScheduledPublication) -> None:
    """Everything that was true when it was scheduled, once more; what the database checks too is not repeated here."""
    ruleset = plan.release.ruleset
    manifest = ruleset_manifest(ruleset)
    signatures = list(ruleset.signatures.filter(manifest_sha256=plan.release.manifest_sha256))
    if ruleset.status != RulesetStatus.SIGNED or manifest is None:
        raise InvalidInput(_("Its ruleset is no longer signed."))
    if not signature_state(manifest.policy, signatures).is_complete:
        raise InvalidInput(_("Its signatures do not satisfy its policy."))
    refusal = publish_refusal(plan.release, plan.channel)
    for objection in [refusal] if refusal else publish_objections(plan.release):
        raise InvalidInput(objection)


def _give_up(plan: ScheduledPublication, lease: Lease, why: str) -> None:
    with transaction.atomic():
        lease.check()
        if _is_settled(plan):
            return
        _end(plan, ScheduleEndKind.FAILED, None, why[:300])
        people = User.objects.filter(is_active=True, role__in=[Role.SIGNATORY, Role.ADMIN])
        notify(
            people,
            "schedule.failed",
            url=f"/tasks/{plan.task.slug}/control/#schedules",
            release=str(plan.release),
            task=plan.task.name,
            channel=str(ChannelName(plan.channel).label),
            why=why,
        )


def schedule_failed(schedule_id: int, error: str) -> None:
    """A schedule whose job died is given up, never left to look as if it were still to come."""
    plan = ScheduledPublication.objects.select_related("release", "task").get(pk=schedule_id)
    if not _is_settled(plan):
        _end(plan, ScheduleEndKind.FAILED, None, (_("The worker failed: %(why)s") % {"why": error})[:300])


def schedule_until(schedule_id: int, lease: Lease) -> JobResult:
    """Record and tell that a publication ended by itself; the channel fell back at that moment without this."""
    plan = ScheduledPublication.objects.select_related("task", "release").get(pk=schedule_id)
    if plan.until is None or plan.until > server_time():
        raise PutOff(plan.until or plan.effective_from, "Its end has not come.")
    with transaction.atomic():
        lease.check()
        data: dict[str, Json] = {"channel": plan.channel, "schedule": plan.pk}
        event = audit_record("release.ended", actor=None, subject=plan.release, task_slug=plan.task.slug, data=data)
        now = served_now(plan.task_id)[plan.channel]
        tell(task=plan.task, kind="ended", channel=plan.channel, before=plan.release, after=now, event=event)
    return JobResult.DONE


def schedule_until_failed(_schedule_id: int, _error: str) -> None:
    """The channel fell back by the clock; only the message is missing, and the job says so."""
