"""The task: one classification job and everything that belongs to it."""

from typing import TYPE_CHECKING

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import Role

if TYPE_CHECKING:
    from rules.models.review_policy import ReviewPolicy


def default_signer_roles() -> list[str]:
    return [Role.SIGNATORY]


class Task(models.Model):
    """A classification job: labels, input fields, the prompt's frame, endpoints, and the sign-off policy."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(_("name"), max_length=120)
    description = models.TextField(_("description"), blank=True)
    labels = ArrayField(models.CharField(max_length=60), verbose_name=_("labels"))
    input_fields = ArrayField(models.CharField(max_length=60), verbose_name=_("input fields"))
    preamble = models.TextField(_("preamble"), help_text=_("Opens the student's system prompt."))
    output_contract = models.TextField(_("output contract"), help_text=_("Closes it: how to answer."))
    domain_field = models.CharField(
        _("metadata key of the domain"),
        max_length=60,
        blank=True,
        help_text=_("Traces name their domain under this key."),
    )
    teacher = models.ForeignKey(
        "pld_app.ModelEndpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("teacher endpoint"),
    )
    second_teacher = models.ForeignKey(
        "pld_app.ModelEndpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("second teacher endpoint"),
        help_text=_("Another way to the same model: a second worker extracts every other trace there."),
    )
    embedder = models.ForeignKey(
        "pld_app.ModelEndpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("embedding endpoint"),
    )
    student = models.ForeignKey(
        "pld_app.ModelEndpoint",
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("student endpoint"),
    )
    signers_required = models.PositiveSmallIntegerField(_("signers required"), default=2)
    signer_roles = ArrayField(
        models.CharField(max_length=12, choices=Role),
        default=default_signer_roles,
        verbose_name=_("roles that may sign"),
    )
    publisher_may_have_signed = models.BooleanField(
        _("a signer may publish"),
        default=False,
        help_text=_("Unless ticked, a signatory who did not sign publishes: three people beside the composer."),
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    # Not a column: the review policy as it was read for this object (rules.selectors.review_policy).
    kept_policy: "ReviewPolicy | None" = None

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(second_teacher=None) | Q(teacher__isnull=False) & ~Q(second_teacher=F("teacher")),
                name="task_second_teacher_is_another",
                violation_error_message=_("The second teacher endpoint must be another one than the first."),
            ),
            models.CheckConstraint(
                condition=Q(signers_required__gte=2, signers_required__lte=9),
                name="task_four_eyes",
                violation_error_message=_("A release needs at least two signers."),
            ),
            models.CheckConstraint(
                condition=Q(signer_roles__contained_by=[Role.SIGNATORY, Role.REVIEWER]) & Q(signer_roles__len__gte=1),
                name="task_signer_roles",
                violation_error_message=_("Only signatories and reviewers can sign."),
            ),
            models.CheckConstraint(
                condition=Q(labels__len__gte=2),
                name="task_two_labels",
                violation_error_message=_("A task needs at least two labels."),
            ),
        )

    def __str__(self) -> str:
        return self.name
