"""Valid rows with few words. Only what a test is about needs saying."""

from datetime import datetime
from itertools import count
from typing import Any

from django.contrib.auth import SESSION_KEY
from django.db import connection, transaction
from django.db.models import Max
from django.utils import timezone

from pld_app.accounts import account_create
from pld_app.audit import audit_record
from pld_app.canonical import sha256_hex
from pld_app.models import (
    AuditEvent,
    Domain,
    EndpointKind,
    ModelCall,
    ModelEndpoint,
    Reauthentication,
    Role,
    RoleGrant,
    User,
)
from pld_app.reauthentication import Proof, consent_give
from pld_app.role_grants import role_confirm, role_override, role_request
from pld_app.session_store import STARTED, SessionStore
from rules.models import (
    Decision,
    DecisionKind,
    Evidence,
    EvidenceRole,
    Instruction,
    InstructionOrigin,
    InstructionStatus,
    MatchKind,
    MiningRun,
    ReviewPolicy,
    Revision,
    RunMatch,
    RunState,
    Split,
    Task,
    Trace,
)

PASSWORD = "correct horse battery"
# What a person enters in a form that signs: the first time with the consent.
PROOF = {"password": PASSWORD, "consent": "on"}
_numbers = count(1)


def make_user(name: str, role: Role, domain: Domain | str = "") -> User:
    return account_create(username=name, password=PASSWORD, display_name=name.title(), role=role, domain=domain)


def make_grant(user: User, role: Role, domain: Domain | str = "", *, by: User, second: User) -> RoleGrant:
    """Another role for an account, asked for by one administrator and confirmed by another; not in effect yet."""
    grant = role_request(user_id=user.pk, role=role, domain=domain, reason="The team changes.", by=by)
    role_confirm(grant_id=grant.pk, by=second)
    return grant


def change_role(user: User, role: Role, domain: Domain | str = "", *, by: User) -> None:
    """Another role for an account, at once: a second administrator waives the waiting time."""
    others = User.objects.filter(role=Role.ADMIN, is_active=True).exclude(pk__in=[by.pk, user.pk])
    second = others.first() or make_user("second-admin", Role.ADMIN)
    grant = make_grant(user, role, domain, by=by, second=second)
    role_override(grant_id=grant.pk, by=second, reason="Needed today.")


def make_session(user: User) -> str:
    """The key of a session in which this person is signed in."""
    store = SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[STARTED] = timezone.now().timestamp()
    store.create()
    assert store.session_key
    return store.session_key


def make_proof(user: User, **fields: Any) -> Proof:
    """A right password in a living session, with the consent; `fields` change it."""
    values: dict[str, Any] = {"password": PASSWORD, "consent": True}
    if "session_key" not in fields:
        values["session_key"] = make_session(user)
    return Proof(**(values | fields))


def make_reauthentication(user: User, subject: Any, **fields: Any) -> Reauthentication:
    """A right proof for one act, past the service; `fields` break one thing."""
    consent_give(user=user)
    session_key = fields.pop("session_key", "") or make_session(user)
    with transaction.atomic():
        event = fields.pop("event", None) or audit_record("account.reauthenticated", actor=user, subject=user)
        values: dict[str, Any] = {
            "purpose": "sign",
            "subject_type": subject._meta.model_name,
            "subject_id": str(subject.pk),
            "content_sha256": getattr(subject, "manifest_sha256", ""),
            "meaning": "",
            "method": "password",
            "session_sha256": sha256_hex(session_key),
        }
        row = Reauthentication.objects.create(user=user, event=event, **(values | fields))
    row.refresh_from_db()
    return row


def make_task(slug: str = "nda", **fields: Any) -> Task:
    values: dict[str, Any] = {
        "name": slug.upper(),
        "labels": ["Compliant", "Breach", "Unclear"],
        "input_fields": ["clause", "question"],
        "preamble": "You check clauses.",
        "output_contract": 'Answer as {"label": ...}.',
        "domain_field": "domain",
        # Two signatories are enough for a test of anything else than who publishes.
        "publisher_may_have_signed": True,
    }
    policy: dict[str, Any] = fields.pop("policy", {})
    task = Task.objects.create(slug=slug, **(values | fields))
    make_policy(task, **policy)
    return task


# One reviewer decides, at any speed: what a test of anything else than the quality of review is about.
PLAIN_POLICY: dict[str, Any] = {
    "double_percent": 0,
    "double_edited": False,
    "double_conflicting": False,
    "impact_percent": 0,
    "seed_percent": 0,
    "blind_first": False,
    "min_seconds": 0,
    "fast_percent": 0,
    "evidence_percent": 0,
    "notice_first": False,
    "recall_percent": 0,
    "overturned_percent": 0,
}


def make_policy(task: Task, **fields: Any) -> ReviewPolicy:
    """The next version of the task's review policy: plain, but for the fields named."""
    version = 1 + ReviewPolicy.objects.filter(task=task).count()
    values = PLAIN_POLICY | fields
    task.kept_policy = None
    if version == 1:
        return ReviewPolicy.objects.create(task=task, version=1, **values)
    admin = User.objects.filter(role=Role.ADMIN, is_active=True).first() or make_user("policy-admin", Role.ADMIN)
    with transaction.atomic():
        event = audit_record("review_policy.changed", actor=admin, subject=task)
        return ReviewPolicy.objects.create(task=task, version=version, author=admin, event=event, **values)


def make_endpoint(
    base_url: str, *, slug: str = "stub", kind: EndpointKind = EndpointKind.CHAT, **fields: Any
) -> ModelEndpoint:
    return ModelEndpoint.objects.create(
        slug=slug, name=slug, kind=kind, base_url=base_url, **({"model": "stub-1"} | fields)
    )


def make_call(endpoint: ModelEndpoint, **fields: Any) -> ModelCall:
    """A call the ledger holds as answered."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "purpose": "extract",
        "request_hash": sha256_hex(f"call {number}"),
        "model_requested": endpoint.model,
        "outcome": ModelCall.OK,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cost": "0.004",
        "raw_reply": '{"object": "chat.completion"}',
    }
    return ModelCall.objects.create(endpoint=endpoint, **(values | fields))


def make_trace(task: Task, **fields: Any) -> Trace:
    number = next(_numbers)
    values: dict[str, Any] = {
        "external_id": f"t-{number}",
        "input": {"clause": f"Clause {number}.", "question": "May copies be kept?"},
        "label": "Compliant",
        "rationale": f"Because of clause {number}.",
        "instruction": f"If clause {number} allows copies, then label Compliant.",
        "split": Split.TRAIN,
        "content_hash": sha256_hex(str(number)),
    }
    return Trace.objects.create(task=task, **(values | fields))


def text_row(instruction: Instruction) -> Revision:
    """The revision that is its present text."""
    assert instruction.current_revision is not None
    return instruction.current_revision


def make_instruction(
    task: Task, text: str = "If copies may be kept, then label Compliant.", **fields: Any
) -> Instruction:
    """A proposed instruction with its mined text as revision 1."""
    number = 1 + Instruction.objects.filter(task=task).count()
    values: dict[str, Any] = {
        "number": number,
        "label": "Compliant",
        "origin": InstructionOrigin.EXTRACTIVE,
        "topic": "copies",
    }
    instruction = Instruction.objects.create(task=task, **(values | fields))
    revision = Revision.objects.create(instruction=instruction, number=1, text=text, text_sha256=sha256_hex(text))
    instruction.current_revision = revision
    instruction.save(update_fields=["current_revision"])
    return instruction


def make_evidence(instruction: Instruction, trace: Trace, role: EvidenceRole = EvidenceRole.SUPPORTING) -> Evidence:
    rank = 1 + Evidence.objects.filter(instruction=instruction, role=role).count()
    return Evidence.objects.create(instruction=instruction, trace=trace, role=role, rank=rank)


def make_change(instruction: Instruction, text: str = "If copies are kept for a year, then label Breach.") -> RunMatch:
    """A finished run that words the instruction anew."""
    number = 1 + (instruction.task.mining_runs.aggregate(last=Max("number"))["last"] or 0)
    run = MiningRun.objects.create(task=instruction.task, number=number, state=RunState.SUCCEEDED)
    return RunMatch.objects.create(run=run, instruction=instruction, kind=MatchKind.REWORDED, proposed_text=text)


def approve_directly(instruction: Instruction, reviewer: User) -> Instruction:
    """Approve past the services, as the database demands it: event, decision, then status."""
    with transaction.atomic():
        revision = instruction.current_revision
        assert revision is not None
        event = audit_record(
            "instruction.approved",
            actor=reviewer,
            subject=instruction,
            task_slug=instruction.task.slug,
            data={"number": instruction.number, "revision": revision.number, "text_sha256": revision.text_sha256},
        )
        Decision.objects.create(
            instruction=instruction, revision=revision, kind=DecisionKind.APPROVE, actor=reviewer, event=event
        )
        instruction.status = InstructionStatus.APPROVED
        instruction.approved_revision = revision
        instruction.version += 1
        instruction.save(update_fields=["status", "approved_revision", "version"])
    return instruction


def audit_actions(subject: Any) -> list[str]:
    """The actions recorded about a row since it was made, oldest first."""
    events = AuditEvent.objects.filter(object_type=subject._meta.model_name, object_id=str(subject.pk))
    events = events.exclude(action="account.created", actor=None)
    return list(events.order_by("pk").values_list("action", flat=True))


def event_backdate(event: AuditEvent, at: datetime) -> AuditEvent:
    """Give an event another time, as only the owner of the table can: the database stamps every event itself."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE pld_app_auditevent DISABLE TRIGGER pld_append_only")
        cursor.execute("UPDATE pld_app_auditevent SET at = %s WHERE id = %s", [at, event.pk])
        cursor.execute("ALTER TABLE pld_app_auditevent ENABLE ALWAYS TRIGGER pld_append_only")
    event.at = at
    return event


def now() -> datetime:
    return timezone.now()
