"""Comments on a rule or a part of its text: append-only words, threads that are resolved and reopened."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, Domain
from rules.models.instructions import Instruction, Revision

BODY_CHARACTERS = 4000


class Comment(models.Model):
    """One remark or reply. Its place is on the revision it was written on: offsets in characters, and the words there.

    Its words are in versions; only `is_resolved` changes, and the database alone changes it, with the newest turn.
    """

    instruction = models.ForeignKey(Instruction, models.PROTECT, related_name="comments")
    revision = models.ForeignKey(Revision, models.PROTECT, related_name="+")
    parent = models.ForeignKey("self", models.PROTECT, null=True, related_name="replies")
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    start = models.PositiveIntegerField(null=True)
    end = models.PositiveIntegerField(null=True)
    quote = models.TextField(blank=True)
    is_resolved = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(
                condition=Q(start__isnull=True, end__isnull=True, quote="")
                | (Q(start__isnull=False, end__isnull=False, start__lt=F("end")) & ~Q(quote="")),
                name="comment_span_has_quote",
            ),
            models.CheckConstraint(
                condition=Q(parent__isnull=True) | Q(is_resolved=False, start__isnull=True),
                name="comment_reply_has_no_state",
            ),
        )
        indexes = (
            models.Index(
                fields=["instruction"],
                condition=Q(parent__isnull=True, is_resolved=False),
                name="comment_open",
            ),
        )

    def __str__(self) -> str:
        return f"comment {self.pk} on {self.instruction}"


class CommentVersion(models.Model):
    """The words of a comment; the newest version stands, the others stay on record. Append-only."""

    comment = models.ForeignKey(Comment, models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    body = models.TextField(max_length=BODY_CHARACTERS)
    pools = ArrayField(models.CharField(max_length=12, choices=Domain), default=list)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("number",)
        constraints = (
            models.UniqueConstraint(fields=["comment", "number"], name="comment_version_number"),
            models.CheckConstraint(
                condition=~Q(body=""), name="comment_has_words", violation_error_message=_("Write something.")
            ),
        )

    def __str__(self) -> str:
        return f"{self.comment} v{self.number}"


class CommentMention(models.Model):
    """A person whom a version of a comment names. Append-only, made with the version."""

    version = models.ForeignKey(CommentVersion, models.PROTECT, related_name="mentions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["version", "user"], name="comment_mention_once"),)

    def __str__(self) -> str:
        return f"{self.version} @{self.user.username}"


class CommentTurn(models.Model):
    """A thread resolved, or opened again. Append-only; the database moves the thread's state with it."""

    comment = models.ForeignKey(Comment, models.PROTECT, related_name="turns")
    is_resolved = models.BooleanField()
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("pk",)

    def __str__(self) -> str:
        return f"{self.comment} {'resolved' if self.is_resolved else 'reopened'}"
