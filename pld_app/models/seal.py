"""The seal over the audit log: the order of its leaves, signed checkpoints, keys, copies outside (docs/governance.md).

All rows but `AuditSink` refuse UPDATE and DELETE. The sealer's process writes them; everybody else reads.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from pld_app.models.audit import AuditEvent


class SealedLeaf(models.Model):
    """The place of an event in the tree: `index` counts from 0 without gaps. The hash is that of the event's leaf."""

    index = models.BigIntegerField(primary_key=True)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="sealed")
    leaf_hash = models.BinaryField()

    class Meta:
        constraints = (models.CheckConstraint(condition=Q(index__gte=0), name="sealed_leaf_index_from_zero"),)

    def __str__(self) -> str:
        return f"leaf {self.index}"


class SealedNode(models.Model):
    """The root of a full subtree of 256, 65,536, ... leaves (level 8, 16, ...): a proof reads 256 hashes a level."""

    level = models.PositiveSmallIntegerField()
    index = models.BigIntegerField()
    hash = models.BinaryField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["level", "index"], name="sealed_node_once"),)

    def __str__(self) -> str:
        return f"node {self.level}/{self.index}"


class AuditKey(models.Model):
    """A public key of the log (Ed25519, 32 bytes). `statement` is canonical JSON that introduces it, signed by the key
    before it, or by itself when it is the first; `size` is how many leaves were sealed then.
    """

    name = models.CharField(_("origin"), max_length=120)
    key_id = models.CharField(max_length=8, unique=True)
    public_key = models.BinaryField(unique=True)
    signed_by = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")
    size = models.BigIntegerField()
    statement = models.BinaryField()
    signature = models.BinaryField()
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id}"


class AuditKeyRevocation(models.Model):
    """A key that no longer counts: its checkpoints over more than `size` leaves are refused. Signed by another key."""

    key = models.OneToOneField(AuditKey, models.PROTECT, related_name="revocation")
    size = models.BigIntegerField()
    reason = models.CharField(max_length=300)
    signed_by = models.ForeignKey(AuditKey, models.PROTECT, related_name="+")
    statement = models.BinaryField()
    signature = models.BinaryField()
    at = models.DateTimeField(db_default=Now(), editable=False)

    def __str__(self) -> str:
        return f"{self.key} revoked"


class Checkpoint(models.Model):
    """The tree at one size: root, the frontier to continue from, and the signed note that is handed out."""

    size = models.BigIntegerField()
    root = models.BinaryField()
    frontier = models.BinaryField()
    note = models.TextField()
    key = models.ForeignKey(AuditKey, models.PROTECT, related_name="checkpoints")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("size", "pk")
        constraints = (models.UniqueConstraint(fields=["size", "key"], name="checkpoint_once_a_key"),)

    def __str__(self) -> str:
        return f"checkpoint {self.size}"


class CheckpointCopy(models.Model):
    """A checkpoint that has arrived outside the database; `place` says where (a file name, an address)."""

    checkpoint = models.ForeignKey(Checkpoint, models.PROTECT, related_name="copies")
    sink = models.CharField(max_length=20)
    place = models.CharField(max_length=300)
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["checkpoint", "sink"], name="checkpoint_copied_once"),)

    def __str__(self) -> str:
        return f"{self.checkpoint} in {self.sink}"


class AuditSink(models.Model):
    """Where copies go, and how it went last: `failures` counts tries since the last success."""

    name = models.CharField(max_length=20, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=300, blank=True)
    last_ok_at = models.DateTimeField(null=True)
    last_try_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.name


class AuditAlarm(models.Model):
    """The log and its copy outside disagree, or somebody has looked into that: while the newest row is raised, nothing
    is published and nothing sealed.
    """

    class State(models.TextChoices):
        RAISED = "raised", _("Raised")
        CLEARED = "cleared", _("Cleared")

    state = models.CharField(max_length=8, choices=State)
    detail = models.CharField(max_length=500)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (models.CheckConstraint(condition=Q(state__in=["raised", "cleared"]), name="alarm_state_known"),)

    def __str__(self) -> str:
        return f"{self.state}: {self.detail}"
