"""What the ruleset pages and the sign-off need to know."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404
from django.utils.translation import gettext as _

from pld_app.models import AuditEvent, Role, User
from rules.manifest import Compiled, Frame, Manifest, ManifestInstruction, Policy, manifest_build, manifest_read
from rules.models import (
    APPROVING,
    COUNTED,
    Decision,
    DecisionKind,
    Instruction,
    InstructionStatus,
    Meaning,
    Ruleset,
    RulesetItem,
    Signature,
    Task,
)
from rules.selectors.policy import policy_content, policy_in_force
from rules.suggestions import Line

ADDABLE_SHOWN = 50
# Who did one of these worked on the ruleset and does not sign it.
COMPOSING = ("ruleset.created", "ruleset.changed")


def ruleset_list(task: Task) -> QuerySet[Ruleset]:
    """Rulesets of a task, newest first, with `item_count` and `signature_count`; composer and release are loaded."""

    def count_of(model: type[RulesetItem | Signature]) -> Coalesce:
        rows = model._default_manager.filter(ruleset=OuterRef("pk")).order_by().values("ruleset")
        return Coalesce(Subquery(rows.annotate(n=Count("pk")).values("n"), output_field=IntegerField()), 0)

    return (
        Ruleset.objects.filter(task=task)
        .select_related("composed_by", "release")
        .defer("manifest", "prompt", "release__prompt")
        .annotate(item_count=count_of(RulesetItem), signature_count=count_of(Signature))
    )


def ruleset_get(slug: str, number: int) -> Ruleset:
    """The ruleset with task, composer and release, or 404."""
    ruleset = (
        Ruleset.objects.select_related("task", "composed_by", "release", "release__created_by")
        .filter(task__slug=slug, number=number)
        .first()
    )
    if ruleset is None:
        raise Http404
    return ruleset


def ruleset_manifest(ruleset: Ruleset) -> Manifest | None:
    """The signed (or to be signed) content, or None for a draft."""
    return None if ruleset.manifest is None else manifest_read(bytes(ruleset.manifest))


def ruleset_items(ruleset: Ruleset) -> list[RulesetItem]:
    """The items in order, with instruction, mining run, revision and its author."""
    related = ("instruction__run", "revision__author")
    return list(ruleset.items.select_related(*related).order_by("position"))


def approvals_of(revision_ids: Iterable[int]) -> dict[int, Decision]:
    """The latest approval of each of these revisions, by revision id, with its reviewer."""
    approvals = Decision.objects.filter(kind=DecisionKind.APPROVE, revision_id__in=list(revision_ids))
    return {decision.revision_id: decision for decision in approvals.select_related("actor").order_by("pk")}


def utc_text(at: datetime) -> str:
    """UTC with microseconds, e.g. 2026-11-20T10:02:00.000000Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def ruleset_compile(ruleset: Ruleset, items: Sequence[RulesetItem] | None = None) -> Compiled:
    """Manifest and prompt as they would be frozen now (also for a draft's preview or evaluation).

    Raises ValueError when an instruction has no visible text.
    """
    rows = ruleset_items(ruleset) if items is None else items
    approvals = approvals_of(row.revision_id for row in rows)
    task = ruleset.task
    frame = Frame(
        task=task.slug,
        ruleset=ruleset.number,
        name=ruleset.name,
        labels=task.labels,
        policy=policy_content(policy_in_force(task)),
        preamble=task.preamble,
        output_contract=task.output_contract,
    )
    return manifest_build(frame, [_manifest_instruction(row, approvals.get(row.revision_id)) for row in rows])


def _manifest_instruction(row: RulesetItem, approval: Decision | None) -> ManifestInstruction:
    instruction, revision = row.instruction, row.revision
    return ManifestInstruction(
        number=instruction.number,
        revision=revision.number,
        label=instruction.label,
        text=revision.text,
        text_sha256=revision.text_sha256,
        origin=str(instruction.origin),
        support=instruction.support,
        run=instruction.run.number if instruction.run else None,
        author=revision.author.username if revision.author else "",
        approved_by=approval.actor.username if approval else "",
        approved_at=utc_text(approval.at) if approval else "",
    )


def draft_lines(items: Iterable[RulesetItem]) -> list[Line]:
    """The texts of a draft, as suggestions about its length look at them."""
    return [
        Line(row.instruction.number, row.instruction.label, row.revision.text, row.instruction.support) for row in items
    ]


def is_current(row: RulesetItem) -> bool:
    """Whether this very text is still the approved one."""
    instruction = row.instruction
    return instruction.status == InstructionStatus.APPROVED and instruction.approved_revision_id == row.revision_id


@dataclass(frozen=True)
class DraftRow:
    item: RulesetItem
    approval: Decision | None
    outdated: str
    """Why this text cannot be frozen, or empty."""
    label_index: int | None


@dataclass(frozen=True)
class ManifestRow:
    place: int
    instruction: ManifestInstruction
    label_index: int | None


def manifest_rows(manifest: Manifest) -> list[ManifestRow]:
    """The instructions of a manifest in order, each with the place of its label among the manifest's."""
    return [
        ManifestRow(place, instruction, _label_index(manifest.labels, instruction.label))
        for place, instruction in enumerate(manifest.instructions, start=1)
    ]


def _label_index(labels: Sequence[str], label: str) -> int | None:
    return list(labels).index(label) if label in labels else None


def draft_rows(items: Sequence[RulesetItem], labels: Sequence[str] = ()) -> list[DraftRow]:
    """The rows of a draft with who approved each text, and which ones no longer hold."""
    approvals = approvals_of(item.revision_id for item in items)
    return [
        DraftRow(item, approvals.get(item.revision_id), _outdated(item), _label_index(labels, item.instruction.label))
        for item in items
    ]


def _outdated(item: RulesetItem) -> str:
    if is_current(item):
        return ""
    if item.instruction.status == InstructionStatus.APPROVED:
        return _("A newer text was approved")
    return _("No longer approved")


def addable(ruleset: Ruleset, words: str = "") -> QuerySet[Instruction]:
    """Approved instructions that are not in the draft, optionally only those whose text holds `words`."""
    held = ruleset.items.values("instruction")
    found = publishable(ruleset.task).exclude(pk__in=held).select_related("approved_revision")
    return found.filter(approved_revision__text__icontains=words) if words else found


def publishable(task: Task) -> QuerySet[Instruction]:
    """Approved instructions of the task that were not seeded, by number."""
    return Instruction.objects.filter(task=task, status=InstructionStatus.APPROVED, is_seeded=False).order_by("number")


@dataclass(frozen=True)
class Signer:
    """One account that the policy lets sign: its signature, or why it is left out (both empty: it may sign)."""

    user: User
    signature: Signature | None
    excluded: str


def signers(ruleset: Ruleset) -> list[Signer]:
    """Every active account in the policy's roles, and where it stands; then signers who have left those roles."""
    signed = {one.signer_id: one for one in ruleset.signatures.select_related("signer")}
    reasons = _exclusions(ruleset)
    users = User.objects.filter(is_active=True, role__in=policy_of(ruleset).signer_roles).order_by("display_name", "pk")
    rows = [Signer(user, signed.pop(user.pk, None), reasons.get(user.pk, "")) for user in users]
    return rows + [Signer(one.signer, one, "") for one in signed.values()]


def exclusion_reason(ruleset: Ruleset, user: User) -> str:
    """Why this person does not sign this ruleset, or empty."""
    return _exclusions(ruleset).get(user.pk, "")


def has_worked_on(ruleset: Ruleset, user: User) -> bool:
    """Whether this person composed it or worded a text in it, as the database's own function says."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pld_worked_on(%s, %s)", [ruleset.pk, user.pk])
        return bool(cursor.fetchone()[0])


def _exclusions(ruleset: Ruleset) -> dict[int, str]:
    """Why a person is left out, by user id: authors of a text in it, everybody who composed it, perhaps its miners."""
    found: dict[int, str] = {}
    edited: dict[int, list[str]] = {}
    authored = ruleset.items.filter(revision__author__isnull=False).order_by("instruction__number")
    for author, number in authored.values_list("revision__author_id", "instruction__number"):
        edited.setdefault(author, []).append(f"#{number}")
    for author, numbers in edited.items():
        found[author] = _("Wrote the text of %(numbers)s") % {"numbers": ", ".join(numbers)}
    if not policy_of(ruleset).miners_may_sign:
        started = ruleset.items.filter(instruction__run__created_by__isnull=False).order_by()
        for miner in started.values_list("instruction__run__created_by_id", flat=True).distinct():
            found[miner] = _("Started the mining it comes from")
    events = AuditEvent.objects.filter(object_type="ruleset", object_id=str(ruleset.pk), action__in=COMPOSING)
    for composer in {ruleset.composed_by_id, *events.values_list("actor_id", flat=True)}:
        if composer is not None:
            found[composer] = _("Composed this ruleset")
    return found


def policy_of(ruleset: Ruleset) -> Policy:
    """The policy its signers are held to: the signed one once frozen, the one in force before."""
    manifest = ruleset_manifest(ruleset)
    return manifest.policy if manifest else policy_content(policy_in_force(ruleset.task))


@dataclass(frozen=True)
class SignatureState:
    """How far the signatures are, by the policy in the signed bytes."""

    have: int
    needed: int
    approved: bool
    rejected: bool
    signatories_missing: int
    domains_missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        missing = self.signatories_missing or self.domains_missing
        return self.have >= self.needed and self.approved and not (self.rejected or missing)


def signature_state(policy: Policy, signatures: Sequence[Signature]) -> SignatureState:
    """Hold signatures (of distinct people) against a policy, as the database function pld_signatures_complete does."""
    counted = [one for one in signatures if one.meaning in COUNTED]
    signatories = sum(one.signer_role == Role.SIGNATORY for one in counted)
    return SignatureState(
        have=len(counted),
        needed=max(2, policy.signers_required),
        approved=any(one.meaning in APPROVING for one in counted),
        rejected=any(one.meaning == Meaning.REJECTED for one in signatures),
        signatories_missing=max(0, policy.signatories_required - signatories),
        domains_missing=tuple(sorted({*policy.domains} - {one.signer_domain for one in counted})),
    )
