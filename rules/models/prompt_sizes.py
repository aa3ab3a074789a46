"""How long a prompt is for a student, by that student's own tokenizer."""

from django.db import models

from pld_app.models import ModelEndpoint


class PromptSize(models.Model):
    """Tokens of the prompt with this hash for this model, as its server counted them. Absent: it was not asked yet,
    or has no tokenizer to ask.
    """

    prompt_sha256 = models.CharField(max_length=64)
    endpoint = models.ForeignKey(ModelEndpoint, models.PROTECT, related_name="+")
    model = models.CharField(max_length=120)
    tokens = models.PositiveIntegerField()

    class Meta:
        constraints = (models.UniqueConstraint(fields=["prompt_sha256", "endpoint", "model"], name="prompt_size_once"),)

    def __str__(self) -> str:
        return f"{self.tokens} tokens of {self.model}"
