"""The audit log: append-only rows, written in the transaction of what they record."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


def kind_word(object_type: str) -> str:
    """`miningrun` as "mining run"; a type that is no model any more stays as it was written."""
    if object_type == "user":
        return str(_("account"))
    named = (model._meta for model in apps.get_models() if model._meta.model_name == object_type)
    return next((str(meta.verbose_name) for meta in named), object_type)


class AuditEvent(models.Model):
    """One recorded action. The database refuses UPDATE, DELETE and TRUNCATE (migration 0002).

    Name and role of the actor are copied, so that the record reads the same after the account changes. Id, time and
    everything from `chain` down are made by the database in the INSERT (migration 0004), whatever is sent:
    `body` is canonical JSON of the columns above, `leaf` the JSON {at, body_sha256, chain, prev, seq, v} that the audit
    tree holds, `leaf_hash` SHA-256(0x00 || leaf), `seq` counts from 1 in the chain and `prev` is the leaf hash before.
    """

    at = models.DateTimeField(_("time"), db_default=Now(), editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    actor_name = models.CharField(_("actor"), max_length=120)
    actor_role = models.CharField(max_length=12)
    action = models.CharField(_("action"), max_length=60)
    object_type = models.CharField(max_length=40)
    object_id = models.CharField(max_length=40)
    object_label = models.CharField(_("object"), max_length=200)
    task_slug = models.CharField(max_length=60, blank=True)
    data = models.JSONField(default=dict)
    request_id = models.CharField(max_length=36, blank=True)
    app_version = models.CharField(max_length=20, blank=True, db_default="")
    chain = models.CharField(max_length=80, db_default="", editable=False)
    seq = models.BigIntegerField(db_default=0, editable=False)
    prev = models.BinaryField(db_default=b"", editable=False)
    body = models.BinaryField(db_default=b"", editable=False)
    leaf = models.BinaryField(db_default=b"", editable=False)
    leaf_hash = models.BinaryField(db_default=b"", editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["chain", "seq"], name="audit_chain_without_gaps"),
            models.UniqueConstraint(fields=["chain", "prev"], name="audit_chain_without_forks"),
        )
        indexes = (
            models.Index(fields=["object_type", "object_id"], name="audit_object"),
            models.Index(fields=["actor", "-id"], name="audit_actor"),
            models.Index(fields=["action", "-id"], name="audit_action"),
            models.Index(fields=["at"], name="audit_at"),
            models.Index(fields=["task_slug", "-id"], name="audit_task"),
            models.Index(fields=["request_id"], condition=~models.Q(request_id=""), name="audit_request"),
        )

    def __str__(self) -> str:
        return f"{self.action} {self.object_label}"

    @property
    def object_kind(self) -> str:
        """The kind of its object as people call it."""
        return kind_word(self.object_type)

    @property
    def sentence(self) -> str:
        """Who did what to what, as people say it."""
        from pld_app.audit_words import event_sentence  # noqa: PLC0415  # it asks for this model's words

        return event_sentence(self)

    @property
    def reason(self) -> str:
        """Why, in the words of whoever did it; empty when none were asked for."""
        from pld_app.audit_words import event_reason  # noqa: PLC0415

        return event_reason(self)

    @property
    def changes(self) -> list[Any]:
        """The data as rows of name, value before (or None) and value: `pld_app.audit_words.Change`."""
        from pld_app.audit_words import event_changes  # noqa: PLC0415

        return list(event_changes(self))

    @property
    def facts(self) -> list[tuple[str, Any]]:
        """The data as pairs: in a template `data.items` would be the value of a key of that name."""
        return [*self.data.items()]


class AuditChain(models.Model):
    """The newest link of one chain: `ruleset:<id>`, `task:<slug>` or `platform`; only the events' trigger writes it."""

    name = models.CharField(max_length=80, primary_key=True)
    seq = models.BigIntegerField()
    head = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.name} {self.seq}"


class AuditQuery(models.Model):
    """A search of the log kept under an address of its own, for its owner or for everybody who reads the log."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(_("name"), max_length=80)
    is_shared = models.BooleanField(_("for everybody who reads the log"), default=False)
    query = models.CharField(max_length=1000, blank=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        ordering = ("name", "pk")

    def __str__(self) -> str:
        return self.name
