"""Quality gates: what a release must have shown before it is published, what was found, and signed exceptions."""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from pld_app.models import AuditEvent, ModelEndpoint, Reauthentication
from rules.models.control import SignedAct
from rules.models.policy import PolicyVerdict
from rules.models.publishing import Release
from rules.models.rulesets import Ruleset
from rules.models.task import Task
from rules.models.traces import Split


class GateName(models.TextChoices):
    MACRO_F1 = "macro_f1", _("Macro-F1, at least")
    DROP = "drop", _("Drop of macro-F1 against production, at most")
    MALFORMED = "malformed", _("Share of answers that cannot be used, at most")
    PROMPT_TOKENS = "prompt_tokens", _("Tokens of the prompt, at most")
    LABEL_F1 = "label_f1", _("F1 of a label, at least")


def _above_0(name: str) -> Q:
    """Not set, or a floor that something can miss and something can reach."""
    return Q(**{name: None}) | Q(**{f"{name}__gt": 0, f"{name}__lte": 1})


def _below_1(name: str) -> Q:
    """Not set, or a ceiling that something can exceed."""
    return Q(**{name: None}) | Q(**{f"{name}__gte": 0, f"{name}__lt": 1})


class GatePolicy(models.Model):
    """One version of a task's gates. Append-only; the newest confirmed one is in force, and without one no gate is set.

    Figures count over the whole split of the dataset with this hash, by this endpoint's model, from `minimum_n`
    examples on. Floors and ceilings bound the estimate; `max_drop` bounds the lower end of the paired 95% interval, so
    that a drop which cannot be ruled out does not pass. `label_floors` maps a label to its least F1 as text ("0.600").
    `revalidate_days`: how long a passed re-evaluation of the release in production counts.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="gate_policies")
    version = models.PositiveIntegerField()
    student = models.ForeignKey(
        ModelEndpoint, models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("student endpoint")
    )
    dataset_sha256 = models.CharField(max_length=64, blank=True)
    dataset_name = models.CharField(_("dataset"), max_length=160, blank=True)
    split = models.CharField(max_length=12, choices=Split, default=Split.TEST)
    minimum_n = models.PositiveIntegerField(_("examples, at least"), default=1)
    min_macro_f1 = models.DecimalField(max_digits=4, decimal_places=3, null=True, blank=True)
    max_drop = models.DecimalField(max_digits=4, decimal_places=3, null=True, blank=True)
    max_malformed_rate = models.DecimalField(max_digits=4, decimal_places=3, null=True, blank=True)
    max_prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    label_floors = models.JSONField(default=dict, blank=True)
    staging_too = models.BooleanField(_("staging asks for them too"), default=False)
    revalidate_days = models.PositiveSmallIntegerField(_("days until it is due again"), null=True, blank=True)
    grace_days = models.PositiveSmallIntegerField(_("days of grace"), default=14)
    reason = models.CharField(_("why"), max_length=300)
    proposed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    reauthentication = models.OneToOneField(Reauthentication, models.PROTECT, related_name="+")
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-version",)
        constraints = (
            models.UniqueConstraint(fields=["task", "version"], name="gate_policy_version"),
            models.CheckConstraint(
                condition=_above_0("min_macro_f1"),
                name="gate_policy_macro_f1",
                violation_error_message=_("A least macro-F1 is above 0 and at most 1."),
            ),
            models.CheckConstraint(
                condition=_below_1("max_drop"),
                name="gate_policy_drop",
                violation_error_message=_("A greatest drop is from 0 to below 1."),
            ),
            models.CheckConstraint(
                condition=_below_1("max_malformed_rate"),
                name="gate_policy_malformed",
                violation_error_message=_("A greatest share is from 0 to below 1."),
            ),
            models.CheckConstraint(
                condition=Q(max_prompt_tokens=None) | Q(max_prompt_tokens__gte=1),
                name="gate_policy_tokens",
            ),
            models.CheckConstraint(
                condition=Q(minimum_n__gte=1) & Q(grace_days__lte=365), name="gate_policy_minimum_n_and_grace"
            ),
            models.CheckConstraint(
                condition=Q(
                    min_macro_f1=None,
                    max_drop=None,
                    max_malformed_rate=None,
                    max_prompt_tokens=None,
                    label_floors={},
                    revalidate_days=None,
                )
                | Q(student__isnull=False, split__in=[Split.VALIDATION, Split.TEST]) & ~Q(dataset_sha256=""),
                name="gate_policy_says_on_what",
                violation_error_message=_("Choose the student, the dataset and the split that the gates are about."),
            ),
            models.CheckConstraint(
                condition=Q(revalidate_days=None)
                | Q(revalidate_days__gte=1)
                & (
                    Q(min_macro_f1__isnull=False)
                    | Q(max_drop__isnull=False)
                    | Q(max_malformed_rate__isnull=False)
                    | Q(max_prompt_tokens__isnull=False)
                    | ~Q(label_floors={})
                ),
                name="gate_policy_revalidation_has_gates",
                violation_error_message=_("A date of re-validation needs at least one gate that can be passed."),
            ),
        )

    def __str__(self) -> str:
        return _("Gates %(version)s") % {"version": self.version}

    @property
    def thresholds(self) -> list[tuple[str, str, str]]:
        """(gate, label or empty, threshold as text) in a fixed order; as the function pld_gate_thresholds."""
        single: list[tuple[str, Decimal | int | None]] = [
            (GateName.MACRO_F1.value, self.min_macro_f1),
            (GateName.DROP.value, self.max_drop),
            (GateName.MALFORMED.value, self.max_malformed_rate),
            (GateName.PROMPT_TOKENS.value, self.max_prompt_tokens),
        ]
        floors = [(GateName.LABEL_F1.value, label, str(floor)) for label, floor in self.floors]
        return [*((name, "", str(value)) for name, value in single if value is not None), *floors]

    @property
    def floors(self) -> list[tuple[str, str]]:
        """Label and floor as pairs, since in a template a label named `items` would hide them."""
        return sorted(self.label_floors.items())

    @property
    def has_gates(self) -> bool:
        return bool(self.thresholds)


class GateDecision(SignedAct):
    """A second person's word on proposed gates. Append-only; confirmed ones are in force from then on."""

    policy = models.OneToOneField(GatePolicy, models.PROTECT, related_name="decision")
    verdict = models.CharField(max_length=10, choices=PolicyVerdict)

    class Meta:
        ordering = ("pk",)
        constraints = (
            models.CheckConstraint(condition=Q(verdict__in=PolicyVerdict.values), name="gate_decision_known"),
        )

    def __str__(self) -> str:
        return f"{self.policy}: {self.verdict}"


class GateVerdict(models.Model):
    """What one finished evaluation run says about a frozen ruleset under one version of the gates. Append-only.

    Written by evaluation, which `run_id` and `reference_run_id` point into. `results` has one entry a gate:
    {gate, label, threshold, outcome: passed | failed | not_shown, value, low, high, n, why}, figures as text with six
    decimals, compared at that precision. `reference_sha256` is the manifest of the release production served, empty
    when it served no other one. The newest verdict of a ruleset under the gates in force counts.
    """

    task = models.ForeignKey(Task, models.PROTECT, related_name="gate_verdicts")
    policy = models.ForeignKey(GatePolicy, models.PROTECT, related_name="verdicts")
    ruleset = models.ForeignKey(Ruleset, models.PROTECT, related_name="gate_verdicts")
    manifest_sha256 = models.CharField(max_length=64)
    dataset_sha256 = models.CharField(max_length=64)
    split = models.CharField(max_length=12, choices=Split)
    student = models.ForeignKey(ModelEndpoint, models.PROTECT, related_name="+")
    student_model = models.CharField(max_length=120)
    models_returned = models.CharField(max_length=300, blank=True)
    run_id = models.BigIntegerField()
    run_number = models.PositiveIntegerField()
    measured_at = models.DateTimeField()
    n = models.PositiveIntegerField()
    reference_sha256 = models.CharField(max_length=64, blank=True)
    reference_run_id = models.BigIntegerField(null=True)
    results = models.JSONField()
    passed = models.BooleanField()
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["policy", "ruleset", "run_id", "reference_sha256", "reference_run_id"],
                nulls_distinct=False,
                name="gate_verdict_once",
            ),
        )
        indexes = (models.Index(fields=["policy", "ruleset", "-id"], name="gate_verdict_newest"),)

    def __str__(self) -> str:
        return f"{self.ruleset}: {'passed' if self.passed else 'not passed'}"


class ExceptionMeaning(models.TextChoices):
    ACCEPTED = "risk accepted", _("Published although a gate is not passed: the risk is accepted")


class GateException(SignedAct):
    """A signed act that lets one release be published past its gates until it expires. Append-only.

    By a signatory who neither composed nor edited it; bound to the manifest and to one version of the gates.
    """

    release = models.ForeignKey(Release, models.PROTECT, related_name="gate_exceptions")
    policy = models.ForeignKey(GatePolicy, models.PROTECT, related_name="exceptions")
    manifest_sha256 = models.CharField(max_length=64)
    meaning = models.CharField(max_length=30, choices=ExceptionMeaning)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=~Q(reason=""), name="gate_exception_has_reason"),
            models.CheckConstraint(condition=Q(meaning__in=ExceptionMeaning.values), name="gate_exception_meaning"),
            models.CheckConstraint(condition=Q(expires_at__gt=F("at")), name="gate_exception_expires_later"),
        )

    def __str__(self) -> str:
        return f"{self.release} until {self.expires_at:%Y-%m-%d %H:%M}"


class FlagKind(models.TextChoices):
    GATE_FAILED = "gate_failed", _("A gate is not passed")
    EXCEPTION_ENDED = "exception_ended", _("Its exception has expired")
    EVIDENCE_CHANGED = "evidence_changed", _("Evidence changed since it was signed")
    OVERDUE = "overdue", _("Its re-validation is overdue")


class ReleaseFlag(models.Model):
    """That something was found about a release, recorded and told once. Append-only; it changes nothing that is served.

    `about` names what it is about (a verdict, an exception, a date), so that the same thing is not told twice.
    """

    release = models.ForeignKey(Release, models.PROTECT, related_name="flags")
    kind = models.CharField(max_length=20, choices=FlagKind)
    about = models.CharField(max_length=160)
    words = models.CharField(max_length=500)
    at = models.DateTimeField(default=timezone.now, editable=False)
    event = models.OneToOneField(AuditEvent, models.PROTECT, related_name="+")

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=FlagKind.values), name="release_flag_known"),
            models.UniqueConstraint(fields=["release", "kind", "about"], name="release_flag_once"),
        )

    def __str__(self) -> str:
        return f"{self.release}: {self.kind}"
