"""How long texts are kept, what must be kept longer, and what is erased at law's demand. All append-only."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent
from rules.models.control import Act, SignedAct
from rules.models.policy import PolicyVerdict
from rules.models.task import Task

DEFAULT_MONTHS, LEAST_MONTHS, MOST_MONTHS = 84, 6, 600


class RetentionPolicy(models.Model):
    """For how many months texts of a task (of the installation, without one) are kept; the record itself always is.

    The installation's first row comes with the database. Every other is a proposal until a decision confirms it.
    """

    task = models.ForeignKey(Task, models.PROTECT, null=True, blank=True, related_name="retention_policies")
    months = models.PositiveSmallIntegerField(_("months"))
    replaces = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")
    """The row that was in force for it: the task's, else the installation's."""
    reason = models.CharField(_("why"), max_length=300, blank=True)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    event = models.OneToOneField(AuditEvent, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(months__gte=LEAST_MONTHS, months__lte=MOST_MONTHS),
                name="retention_at_least_six_months",
                violation_error_message=_("Texts are kept for 6 months at least, and for 600 at most."),
            ),
            models.CheckConstraint(
                condition=Q(task=None, replaces=None, proposed_by=None, event=None)
                | Q(replaces__isnull=False, proposed_by__isnull=False, event__isnull=False) & ~Q(reason=""),
                name="retention_proposed",
                violation_error_message=_("Say why you propose it."),
            ),
        )

    def __str__(self) -> str:
        return _("%(months)s months") % {"months": self.months}


class RetentionDecision(SignedAct):
    """A second person's word on a proposed retention; a confirmed one is in force from then on."""

    policy = models.OneToOneField(RetentionPolicy, models.PROTECT, related_name="decision")
    verdict = models.CharField(max_length=10, choices=PolicyVerdict)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(verdict__in=PolicyVerdict.values), name="retention_verdict_known"),
        )

    def __str__(self) -> str:
        return f"{self.policy}: {self.verdict}"


class HoldScope(models.TextChoices):
    ALL = "all", _("Everything")
    TASK = "task", _("A task")
    OBJECT = "object", _("One object or person")


class LegalHold(Act):
    """While it stands, nothing it covers is pruned or erased. One administrator places it: it only ever keeps."""

    scope = models.CharField(_("what"), max_length=8, choices=HoldScope)
    task = models.ForeignKey(Task, models.PROTECT, null=True, blank=True, related_name="holds", verbose_name=_("task"))
    object_type = models.CharField(_("kind of object"), max_length=40, blank=True)
    object_id = models.CharField(_("its id"), max_length=40, blank=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(scope=HoldScope.ALL, task=None, object_type="", object_id="")
                | Q(scope=HoldScope.TASK, task__isnull=False, object_type="", object_id="")
                | Q(scope=HoldScope.OBJECT, task=None) & ~Q(object_type="") & ~Q(object_id=""),
                name="hold_of_one_thing",
                violation_error_message=_("Choose everything, or a task, or an object by kind and id."),
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="hold_has_reason"),
        )

    def __str__(self) -> str:
        if self.scope == HoldScope.OBJECT:
            return f"{self.object_type} {self.object_id}"
        return str(self.task) if self.task is not None else str(HoldScope.ALL.label)


class HoldRelease(SignedAct):
    """A hold is lifted, by another person than who placed it."""

    hold = models.OneToOneField(LegalHold, models.PROTECT, related_name="release")

    class Meta:
        ordering = ("pk",)
        constraints = (models.CheckConstraint(condition=~Q(reason=""), name="hold_release_has_reason"),)

    def __str__(self) -> str:
        return f"{self.hold}: released"


class Erasure(Act):
    """A request to erase personal texts; a second person's decision carries it out, in the same transaction."""

    class Meta:
        ordering = ("-pk",)
        constraints = (models.CheckConstraint(condition=~Q(reason=""), name="erasure_has_reason"),)

    def __str__(self) -> str:
        return _("Erasure %(number)s") % {"number": self.pk}


class ErasureKind(models.TextChoices):
    EVENT = "event", _("Reasons and notes of an audit event")
    COMMENT = "comment", _("Words of a comment")
    TRACE = "trace", _("Texts of a trace")
    ACCOUNT = "account", _("Name and e-mail of a closed account")


class ErasureItem(models.Model):
    """One thing to erase. `sha256` is that of what stands there; of an event's data it is in the sealed body, too."""

    erasure = models.ForeignKey(Erasure, models.PROTECT, related_name="items")
    kind = models.CharField(max_length=8, choices=ErasureKind)
    object_id = models.BigIntegerField()
    sha256 = models.CharField(max_length=64, blank=True)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.UniqueConstraint(fields=["erasure", "kind", "object_id"], name="erasure_item_once"),
            models.CheckConstraint(condition=Q(kind__in=ErasureKind.values), name="erasure_kind_known"),
        )
        indexes = (models.Index(fields=["kind", "object_id"], name="erasure_item_object"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"


class ErasureDecision(SignedAct):
    """The second person's word on an erasure. Confirmed, the database itself puts tombstones for the texts."""

    erasure = models.OneToOneField(Erasure, models.PROTECT, related_name="decision")
    verdict = models.CharField(max_length=10, choices=PolicyVerdict)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(verdict__in=PolicyVerdict.values), name="erasure_verdict_known"),
        )

    def __str__(self) -> str:
        return f"{self.erasure}: {self.verdict}"


class PruneRun(models.Model):
    """What was removed because its time was over: texts of one task's traces, or (without one) raw replies of models.

    The row is the act: the database removes `removed` texts older than `cutoff` with it, or refuses it.
    """

    policy = models.ForeignKey(RetentionPolicy, models.PROTECT, related_name="runs")
    task = models.ForeignKey(Task, models.PROTECT, null=True, related_name="+")
    cutoff = models.DateTimeField()
    removed = models.PositiveIntegerField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(auto_now_add=True)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (models.CheckConstraint(condition=Q(removed__gt=0), name="prune_run_removes"),)

    def __str__(self) -> str:
        return f"{self.removed} of {self.task or 'the ledger'}"
