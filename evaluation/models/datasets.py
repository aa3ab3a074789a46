"""Datasets: labelled examples in three splits, never changed once frozen, and how one becomes a question."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models import Split, Task, Trace


class DatasetSource(models.TextChoices):
    TRACES = "traces", _("Imported traces")
    FILE = "file", _("File of examples")


class DatasetState(models.TextChoices):
    READING = "reading", _("Being read")
    FROZEN = "frozen", _("Frozen")
    REFUSED = "refused", _("Refused")


class Dataset(models.Model):
    """Labelled examples of a task. `sha256` is over all of them (`evaluation.sampling.dataset_hash`).

    `counts` maps split to label to number of examples. `left_out` counts copies that stood in a second split and were
    not taken. `problems` lists why a file was refused, each with its line.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="datasets")
    number = models.PositiveIntegerField()
    name = models.CharField(_("name"), max_length=120)
    source = models.CharField(max_length=8, choices=DatasetSource)
    last_trace_id = models.PositiveBigIntegerField(
        null=True, help_text=_("Traces imported after this one are not in this dataset.")
    )
    file = models.FileField(upload_to="datasets/", max_length=300, blank=True)
    file_name = models.CharField(_("file"), max_length=200, blank=True)
    file_sha256 = models.CharField(max_length=64, blank=True)
    state = models.CharField(max_length=8, choices=DatasetState, default=DatasetState.READING)
    sha256 = models.CharField(max_length=64, blank=True)
    counts = models.JSONField(default=dict)
    left_out = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=list)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    frozen_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(fields=["task", "number"], name="dataset_number"),
            models.UniqueConstraint(
                fields=["task", "name"],
                name="dataset_name",
                violation_error_message=_("This task has a dataset of that name already."),
            ),
            models.CheckConstraint(condition=Q(source__in=DatasetSource.values), name="dataset_source_known"),
            models.CheckConstraint(condition=Q(state__in=DatasetState.values), name="dataset_state_known"),
            models.CheckConstraint(
                condition=~Q(state=DatasetState.FROZEN) | ~Q(sha256="") & Q(frozen_at__isnull=False),
                name="dataset_frozen_has_hash",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def is_finished(self) -> bool:
        return self.state != DatasetState.READING

    def size(self, split: str) -> int:
        """How many examples the split holds."""
        return sum(self.counts.get(split, {}).values())


class Example(models.Model):
    """One labelled example. Append-only. `input_sha256` is that of its input fields: equal inputs, equal hash."""

    dataset = models.ForeignKey(Dataset, models.PROTECT, related_name="examples")
    position = models.PositiveIntegerField()
    external_id = models.CharField(max_length=200)
    split = models.CharField(max_length=12, choices=Split)
    input = models.JSONField()
    label = models.CharField(max_length=60)
    teacher_label = models.CharField(max_length=60, blank=True)
    input_sha256 = models.CharField(max_length=64)
    trace = models.ForeignKey(Trace, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("position",)
        constraints = (
            models.UniqueConstraint(fields=["dataset", "position"], name="example_position"),
            models.UniqueConstraint(fields=["dataset", "external_id"], name="example_id_once"),
            models.CheckConstraint(condition=Q(split__in=Split.values), name="example_split_known"),
        )
        indexes = (models.Index(fields=["dataset", "split", "position"], name="example_split"),)

    def __str__(self) -> str:
        return self.external_id

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Name and text of each input field; as pairs, since in a template a field named `items` would hide them."""
        return [*self.input.items()]


class DatasetCheck(models.Model):
    """What a look at all pairs of splits found: examples that are nearly the same. One a dataset, made by a job."""

    dataset = models.OneToOneField(Dataset, models.PROTECT, related_name="check_result")
    compared = models.PositiveIntegerField()
    of = models.PositiveIntegerField()
    found = models.PositiveIntegerField()
    pairs = models.JSONField(default=list, help_text=_("The closest: ids, splits and similarity of both."))
    at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.dataset}: {self.found}"


class InputTemplate(models.Model):
    """How a task's input fields become the message to the student. Append-only; the newest one counts.

    `text` empty: one JSON object. `abstention_label`, if any, is an answer that says "I do not know"; it is none of
    the task's labels.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="input_templates")
    version = models.PositiveIntegerField()
    text = models.TextField(_("template"), blank=True)
    abstention_label = models.CharField(_("answer for “I do not know”"), max_length=60, blank=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (models.UniqueConstraint(fields=["task", "version"], name="input_template_version"),)

    def __str__(self) -> str:
        return f"v{self.version}"
