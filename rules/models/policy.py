"""Who must sign before a task's prompt is released: versions, each proposed by one person and confirmed by another."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Domain, Reauthentication, Role
from rules.models.instructions import Instruction
from rules.models.rulesets import Ruleset
from rules.models.task import Task


class SignOffPolicy(models.Model):
    """One version of a task's sign-off policy. Append-only.

    Version 1 comes with the task, written by the database. Every later one is a proposal until a `PolicyDecision`
    confirms it; the newest confirmed one is in force. Frozen manifests carry the version they were frozen under.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="policies")
    version = models.PositiveIntegerField()
    signers_required = models.PositiveSmallIntegerField(_("signers required"))
    signer_roles = ArrayField(models.CharField(max_length=12, choices=Role), verbose_name=_("roles that may sign"))
    signatories_required = models.PositiveSmallIntegerField(_("of whom signatories, at least"), default=0)
    domains = ArrayField(
        models.CharField(max_length=12, choices=Domain),
        default=list,
        blank=True,
        verbose_name=_("a signer from each of these domains"),
    )
    miners_may_sign = models.BooleanField(_("whoever started the mining may sign"), default=False)
    publisher_may_have_signed = models.BooleanField(_("a signer may publish"), default=False)
    read_changed_first = models.BooleanField(_("edited and conflicting instructions are opened first"), default=True)
    reason = models.CharField(_("why"), max_length=300, blank=True)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    authenticated_at = models.DateTimeField(null=True)
    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, null=True, related_name="+")
    """Method and time are those of the proof: a trigger copies them."""
    event = models.OneToOneField(AuditEvent, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (
            models.UniqueConstraint(fields=["task", "version"], name="sign_off_policy_version"),
            models.CheckConstraint(
                condition=Q(signers_required__gte=2, signers_required__lte=9),
                name="sign_off_policy_four_eyes",
                violation_error_message=_("A release needs at least two signers."),
            ),
            models.CheckConstraint(
                condition=Q(signatories_required__lte=models.F("signers_required")),
                name="sign_off_policy_signatories",
                violation_error_message=_("There cannot be more signatories than signers."),
            ),
            models.CheckConstraint(
                condition=Q(signer_roles__contained_by=[Role.SIGNATORY, Role.REVIEWER]) & Q(signer_roles__len__gte=1),
                name="sign_off_policy_roles",
                violation_error_message=_("Only signatories and reviewers can sign."),
            ),
            models.CheckConstraint(
                condition=Q(signatories_required=0) | Q(signer_roles__contains=[Role.SIGNATORY]),
                name="sign_off_policy_signatories_may_sign",
                violation_error_message=_("Signatories are asked for, so their role must be among those that sign."),
            ),
            models.CheckConstraint(
                condition=Q(domains=[]) | Q(signer_roles__contains=[Role.REVIEWER]),
                name="sign_off_policy_domains_need_reviewers",
                violation_error_message=_("Only reviewers have a domain, so reviewers must be among those that sign."),
            ),
            models.CheckConstraint(
                condition=Q(domains__contained_by=list(Domain.values)),
                name="sign_off_policy_domains_known",
            ),
            models.CheckConstraint(
                condition=Q(version=1, proposed_by=None, event=None, authenticated_at=None)
                | Q(version__gt=1, proposed_by__isnull=False, event__isnull=False, authenticated_at__isnull=False)
                & ~Q(reason=""),
                name="sign_off_policy_proposed",
                violation_error_message=_("Say why you propose it."),
            ),
        )

    def __str__(self) -> str:
        return _("Policy %(version)s") % {"version": self.version}


class PolicyVerdict(models.TextChoices):
    CONFIRMED = "confirmed", _("Confirmed")
    REFUSED = "refused", _("Refused")


class PolicyDecision(models.Model):
    """A second person's word on a proposed policy. Append-only; a confirmed one is in force from then on."""

    policy = models.OneToOneField(SignOffPolicy, models.PROTECT, related_name="decision")
    verdict = models.CharField(max_length=10, choices=PolicyVerdict)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    actor_name = models.CharField(max_length=120)
    actor_role = models.CharField(max_length=12, choices=Role)
    method = models.CharField(max_length=20, default="password")
    authenticated_at = models.DateTimeField()
    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(verdict__in=PolicyVerdict.values), name="policy_verdict_known"),
        )

    def __str__(self) -> str:
        return f"{self.policy}: {self.verdict}"


class RuleRead(models.Model):
    """That a signer opened an instruction that was edited or is in conflict, before signing. Append-only."""

    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="reads")
    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="+")
    reader = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("pk",)
        constraints = (models.UniqueConstraint(fields=["ruleset", "instruction", "reader"], name="rule_read_once"),)

    def __str__(self) -> str:
        return f"{self.ruleset}: {self.instruction}"
