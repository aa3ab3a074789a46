"""What a mining run found about its own candidates: conflicts, what became of standing instructions, odd labels."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from rules.models.instructions import Instruction
from rules.models.mining import MiningRun
from rules.models.traces import Trace


class ConflictKind(models.TextChoices):
    CONFLICT = "conflict", _("Same condition, different label")
    BOUNDARY = "boundary", _("Opposite condition")


class Conflict(models.Model):
    """Two instructions of different labels whose conditions overlap, as one run found it.

    Counts are of pairs of micro-rules with like conditions; `strength` is from 0 to 1, see rules.mining.conflicts.
    """

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="conflicts")
    first = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    second = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    kind = models.CharField(max_length=10, choices=ConflictKind)
    strength = models.FloatField()
    same_pairs = models.PositiveIntegerField()
    opposed_pairs = models.PositiveIntegerField()

    class Meta:
        # "conflict" sorts after "boundary".
        ordering = ("-kind", "-strength", "pk")
        constraints = (
            models.UniqueConstraint(fields=["run", "first", "second"], name="conflict_once"),
            models.CheckConstraint(condition=Q(first__lt=F("second")), name="conflict_first_before_second"),
            models.CheckConstraint(condition=Q(kind__in=ConflictKind.values), name="conflict_kind_known"),
            models.CheckConstraint(condition=Q(strength__gte=0, strength__lte=1), name="conflict_strength_range"),
        )

    def __str__(self) -> str:
        return f"{self.first} / {self.second}"


class ConflictExample(models.Model):
    """Two traces, one of each instruction, whose micro-rules lie close; `rank` 1 is the closest."""

    conflict = models.ForeignKey(Conflict, models.CASCADE, related_name="examples")
    rank = models.PositiveIntegerField()
    first_trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    second_trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    similarity = models.FloatField()

    class Meta:
        ordering = ("rank",)
        constraints = (models.UniqueConstraint(fields=["conflict", "rank"], name="conflict_example_rank"),)

    def __str__(self) -> str:
        return f"{self.conflict} {self.rank}"


class ConflictRelation(models.TextChoices):
    CONTRADICTS = "contradicts", _("They contradict each other")
    NARROWER = "narrower", _("One is a narrower case of the other")
    DUPLICATE = "duplicate", _("They say the same")
    COMPATIBLE = "compatible", _("They go together")


class ConflictJudgement(models.Model):
    """What the teacher said of a conflict when the run asked it: an opinion that nothing acts on. Append-only.

    Without a `relation` the pair is not judged, and `reason` says why; else `reason` is the teacher's own sentence,
    untrusted. The hashes are of the two texts it read, which may be edited later.
    """

    conflict = models.OneToOneField(Conflict, models.PROTECT, related_name="judgement")
    relation = models.CharField(max_length=12, choices=ConflictRelation, blank=True)
    reason = models.CharField(max_length=300)
    teacher = models.CharField(max_length=200)
    call = models.ForeignKey("pld_app.ModelCall", models.PROTECT, null=True, related_name="+")
    first_sha256 = models.CharField(max_length=64)
    second_sha256 = models.CharField(max_length=64)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = (
            models.CheckConstraint(
                condition=Q(relation__in=["", *ConflictRelation.values]), name="conflict_judgement_relation_known"
            ),
            models.CheckConstraint(
                condition=Q(relation="") | Q(call__isnull=False), name="conflict_judgement_rests_on_a_call"
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="conflict_judgement_has_a_reason"),
        )

    def __str__(self) -> str:
        return f"{self.conflict}: {self.relation or 'not judged'}"


class MatchKind(models.TextChoices):
    """What a run says of an instruction that stood before it, or that it adds."""

    UNCHANGED = "unchanged", _("Unchanged")
    EVIDENCE = "evidence", _("Evidence changed")
    REWORDED = "reworded", _("Reworded")
    NEW = "new", _("New")
    LOST = "lost", _("No longer supported")


class RunMatch(models.Model):
    """What one run says of one instruction. It proposes; the instruction itself stays as people left it.

    `proposed_text` is set for a reworded one that a person has worked on: a reviewer takes it over or dismisses it.
    `replaces` names the untouched candidate that a fresh one took the place of. `shared` counts traces in both.
    """

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="matches")
    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="matches")
    kind = models.CharField(max_length=10, choices=MatchKind)
    proposed_text = models.TextField(blank=True)
    replaces = models.ForeignKey(Instruction, models.CASCADE, null=True, related_name="+")
    traces_before = models.PositiveIntegerField(default=0)
    traces_after = models.PositiveIntegerField(default=0)
    shared = models.PositiveIntegerField(default=0)
    dismissed_at = models.DateTimeField(null=True)
    dismissed_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ("instruction__number",)
        constraints = (
            models.UniqueConstraint(fields=["run", "instruction"], name="run_match_once"),
            models.CheckConstraint(condition=Q(kind__in=MatchKind.values), name="run_match_kind_known"),
            models.CheckConstraint(
                condition=Q(proposed_text="") | Q(kind=MatchKind.REWORDED), name="run_match_proposes_if_reworded"
            ),
            models.CheckConstraint(
                condition=Q(dismissed_at__isnull=True, dismissed_by__isnull=True)
                | Q(dismissed_at__isnull=False, dismissed_by__isnull=False),
                name="run_match_dismissed_by_someone",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instruction} {self.kind}"


class Suspect(models.Model):
    """A trace whose label its nearest neighbours contradict; `neighbour` is the closest that says the same."""

    run = models.ForeignKey(MiningRun, models.CASCADE, related_name="suspects")
    rank = models.PositiveIntegerField()
    trace = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    neighbour = models.ForeignKey(Trace, models.PROTECT, related_name="+")
    others = models.PositiveIntegerField()
    looked_at = models.PositiveIntegerField()
    similarity = models.FloatField()

    class Meta:
        ordering = ("rank",)
        constraints = (
            models.UniqueConstraint(fields=["run", "rank"], name="suspect_rank"),
            models.UniqueConstraint(fields=["run", "trace"], name="suspect_once"),
        )

    def __str__(self) -> str:
        return f"{self.trace} {self.rank}"


class SimilarKind(models.TextChoices):
    """What the other rule is to this one."""

    DUPLICATE = "duplicate", _("Duplicate")
    CONTRADICTS = "contradicts", _("Contradicts")
    NARROWER = "narrower", _("Narrower")
    WIDER = "wider", _("Wider")
    NEAR = "near", _("Similar")


class SimilarRule(models.Model):
    """One of the five instructions whose words are nearest to another's, as the newest mining run of the task saw them.

    `similarity` is the cosine of their TF-IDF word vectors, from 0 to 1; `rank` 1 is the nearest.
    """

    instruction = models.ForeignKey(Instruction, models.CASCADE, related_name="similar")
    other = models.ForeignKey(Instruction, models.CASCADE, related_name="+")
    rank = models.PositiveSmallIntegerField()
    similarity = models.FloatField()
    kind = models.CharField(max_length=12, choices=SimilarKind)

    class Meta:
        ordering = ("rank",)
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=SimilarKind.values), name="similar_rule_kind_known"),
            models.UniqueConstraint(fields=["instruction", "rank"], name="similar_rule_rank"),
            models.UniqueConstraint(fields=["instruction", "other"], name="similar_rule_once"),
            models.CheckConstraint(condition=~Q(instruction=F("other")), name="similar_rule_is_another"),
            models.CheckConstraint(condition=Q(similarity__gte=0, similarity__lte=1), name="similar_rule_range"),
        )

    def __str__(self) -> str:
        return f"{self.instruction_id} ~ {self.other_id}"


class NearDuplicate(models.Model):
    """Instructions that say almost the same share a `family`, the lowest number among them; the queue joins them."""

    instruction = models.OneToOneField(Instruction, models.CASCADE, primary_key=True, related_name="near_duplicate")
    family = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.instruction_id} in {self.family}"
