"""The emergency stop: one person takes something out of use at once, a second signs, a signed act lifts it."""

from datetime import datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from pld_app.accounts import require_role
from pld_app.audit import Json, audit_record
from pld_app.errors import InvalidInput, NotAllowed
from pld_app.jobs import JobResult, Lease, PutOff, job_enqueue
from pld_app.models import AuditEvent, Reauthentication, Role, User
from pld_app.notifications import kind_register, notify
from pld_app.reauthentication import Proof, reauthenticate
from rules.exceptions import InvalidTransition
from rules.models import EmergencyStop, Instruction, Ruleset, StopSignature, StopSignatureKind, Task
from rules.services.announcing import announced
from rules.services.refusals import database_refusals

SIGN_WITHIN = timedelta(hours=24)
JOB_KIND = "stop.due"
STOPPERS = (Role.SIGNATORY, Role.ADMIN)

kind_register(
    "stop.made",
    label=gettext_lazy("Emergency stop: a second signature is asked"),
    text=gettext_lazy("%(by)s stopped %(what)s of %(task)s. A second person signs under it within 24 hours."),
)
kind_register(
    "stop.overdue",
    label=gettext_lazy("Emergency stop: the second signature is overdue"),
    text=gettext_lazy("Nobody has signed under the stop of %(what)s of %(task)s within 24 hours."),
)


def stop_make(
    *, task: Task, actor: User, reason: str, ruleset_id: int | None = None, instruction_id: int | None = None
) -> EmergencyStop:
    """Take a released ruleset, or every release holding one instruction, out of use now, without any further proof.

    Channels fall back to the last valid release without it, or to nothing. Raises InvalidInput without a reason,
    NotAllowed for anyone but signatories and administrators, WrongState when it is stopped already.
    """
    require_role(actor, *STOPPERS)
    if not reason.strip():
        raise InvalidInput(_("Say why you stop it."))
    return _stop(task, actor, reason.strip()[:300], ruleset_id, instruction_id)


@database_refusals()
@transaction.atomic
def _stop(task: Task, actor: User, reason: str, ruleset_id: int | None, instruction_id: int | None) -> EmergencyStop:
    task = Task.objects.select_for_update().get(pk=task.pk)
    ruleset = Ruleset.objects.filter(task=task, pk=ruleset_id or 0).first()
    instruction = Instruction.objects.filter(task=task, pk=instruction_id or 0).first()
    if (ruleset is None) == (instruction is None):
        raise InvalidInput(_("Choose a release or an instruction of this task to stop."))
    what = str(ruleset or instruction)
    data: dict[str, Json] = {
        "ruleset": ruleset.number if ruleset else None,
        "instruction": instruction.number if instruction else None,
        "reason": reason,
    }
    with announced(task, "stopped"):
        event = audit_record("stop.made", actor=actor, subject=task, task_slug=task.slug, data=data)
        stop = EmergencyStop.objects.create(
            task=task,
            ruleset=ruleset,
            instruction=instruction,
            actor=actor,
            actor_name=str(actor),
            actor_role=actor.role,
            reason=reason,
            event=event,
        )
    others = User.objects.filter(is_active=True, role=Role.SIGNATORY).exclude(pk=actor.pk)
    notify(others, "stop.made", url=stops_path(task), by=str(actor), what=what, task=task.name)
    job_enqueue(kind=JOB_KIND, subject_id=stop.pk, key=f"{JOB_KIND}:{stop.pk}", run_after=timezone.now() + SIGN_WITHIN)
    return stop


def stops_path(task: Task) -> str:
    return f"/tasks/{task.slug}/control/#stops"


def stop_sign(*, stop_id: int, actor: User, kind: str, proof: Proof, reason: str = "") -> StopSignature:
    """Sign under a stop ("confirm"), or lift it ("lift", with a reason): a signatory other than who made it.

    Lifting lets channels serve again what the stop held back. Raises InvalidTransition when it was done already.
    """
    require_role(actor, Role.SIGNATORY)
    stop = EmergencyStop.objects.select_related("task").get(pk=stop_id)
    if kind not in StopSignatureKind.values:
        raise InvalidInput(_("Sign under the stop or lift it."))
    if kind == StopSignatureKind.LIFT and not reason.strip():
        raise InvalidInput(_("Say why you lift it."))
    if stop.actor_id == actor.pk:
        raise NotAllowed(_("You made this stop: a second person signs under it or lifts it."))
    _require_open(stop, kind)
    proved = reauthenticate(actor=actor, proof=proof, purpose="stop", subject=stop, task_slug=stop.task.slug)
    return _stop_sign(stop, actor, StopSignatureKind(kind), reason.strip()[:300], proved)


def _require_open(stop: EmergencyStop, kind: str) -> None:
    done = set(stop.signatures.values_list("kind", flat=True))
    if StopSignatureKind.LIFT in done:
        raise InvalidTransition(_("This stop was lifted already."))
    if kind in done:
        raise InvalidTransition(_("Somebody signed under this stop already."))


@database_refusals()
@transaction.atomic
def _stop_sign(
    stop: EmergencyStop, actor: User, kind: StopSignatureKind, reason: str, proved: Reauthentication
) -> StopSignature:
    task = Task.objects.select_for_update().get(pk=stop.task_id)
    _require_open(stop, kind)
    data: dict[str, Json] = {"stop": stop.pk, "what": str(stop), "reason": reason, "method": proved.method}
    action = "stop.lifted" if kind == StopSignatureKind.LIFT else "stop.confirmed"
    with announced(task, "lifted"):
        event = audit_record(action, actor=actor, subject=task, task_slug=task.slug, data=data)
        return StopSignature.objects.create(
            stop=stop,
            kind=kind,
            actor=actor,
            actor_name=str(actor),
            actor_role=actor.role,
            reason=reason,
            reauthentication=proved,
            event=event,
        )


def stop_due(stop_id: int, lease: Lease) -> JobResult:
    """24 hours after a stop: without a second signature, say so once, on the record and to everybody concerned."""
    stop = EmergencyStop.objects.select_related("task", "ruleset", "instruction").get(pk=stop_id)
    due = stop.at + SIGN_WITHIN
    if server_time() < due:
        raise PutOff(due, "The 24 hours are not over.")
    with transaction.atomic():
        lease.check()
        said = AuditEvent.objects.filter(
            action="stop.overdue", object_type="task", object_id=str(stop.task_id), data__stop=stop.pk
        )
        if stop.signatures.exists() or said.exists():
            return JobResult.DONE
        data: dict[str, Json] = {"stop": stop.pk, "what": str(stop)}
        audit_record("stop.overdue", actor=None, subject=stop.task, task_slug=stop.task.slug, data=data)
        people = User.objects.filter(is_active=True, role__in=[*STOPPERS, Role.AUDITOR])
        notify(people, "stop.overdue", url=stops_path(stop.task), what=str(stop), task=stop.task.name)
    return JobResult.DONE


def stop_due_failed(_stop_id: int, _error: str) -> None:
    """The page shows an overdue stop in red by itself; nothing else is to be marked."""


def server_time() -> datetime:
    """Postgres's clock: what is due is never this machine's opinion."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now
