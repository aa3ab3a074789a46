"""Model endpoints and the ledger of every call made to them."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class EndpointKind(models.TextChoices):
    CHAT = "chat", _("Chat completions")
    EMBEDDING = "embedding", _("Embeddings")


class WireApi(models.TextChoices):
    """How a chat question is put on the wire."""

    CHAT = "chat", _("Chat Completions")
    RESPONSES = "responses", _("Responses")


class StructuredOutput(models.TextChoices):
    JSON_SCHEMA = "json_schema", _("JSON schema (strict)")
    JSON_OBJECT = "json_object", _("JSON object")
    NONE = "none", _("None: ask in words")


class ModelEndpoint(models.Model):
    """An OpenAI-compatible server and one model on it. The key stays in the environment, under this name."""

    slug = models.SlugField(max_length=60, unique=True)
    name = models.CharField(_("name"), max_length=120)
    kind = models.CharField(_("kind"), max_length=12, choices=EndpointKind)
    api = models.CharField(
        "API", max_length=12, choices=WireApi, default=WireApi.CHAT, help_text=_("Not used for embeddings.")
    )
    base_url = models.URLField(_("base URL"), max_length=300)
    model = models.CharField(_("model"), max_length=120)
    api_key_env = models.CharField(
        _("environment variable with the key"),
        max_length=80,
        blank=True,
        help_text=_("Empty for a server without a key."),
    )
    structured_output = models.CharField(max_length=12, choices=StructuredOutput, default=StructuredOutput.JSON_SCHEMA)
    concurrency = models.PositiveSmallIntegerField(_("calls at a time"), default=8)
    requests_per_minute = models.PositiveIntegerField(_("requests per minute"), null=True, blank=True)
    tokens_per_minute = models.PositiveIntegerField(_("tokens per minute"), null=True, blank=True)
    timeout_s = models.PositiveSmallIntegerField(_("timeout in seconds"), default=60)
    max_output_tokens = models.PositiveIntegerField(_("longest reply in tokens"), default=1024)
    price_in = models.DecimalField(
        _("price per million tokens read"), max_digits=12, decimal_places=4, default=0, help_text=_("In your currency.")
    )
    price_out = models.DecimalField(_("price per million tokens written"), max_digits=12, decimal_places=4, default=0)
    batch_api = models.BooleanField(
        _("offers OpenAI's Batch API"),
        default=False,
        help_text=_("Large extraction runs may then send their questions as a file and wait up to 24 hours."),
    )
    batch_price_percent = models.PositiveSmallIntegerField(
        _("price of a batched call, in percent"),
        default=100,
        help_text=_("Of the prices above; OpenAI asks for 50 at the time of writing. See your contract."),
    )
    is_active = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=EndpointKind.values), name="endpoint_kind_known"),
            models.CheckConstraint(condition=Q(api__in=WireApi.values), name="endpoint_api_known"),
            models.CheckConstraint(
                condition=Q(concurrency__gte=1, concurrency__lte=64),
                name="endpoint_concurrency_range",
                violation_error_message=_("Calls at a time must be between 1 and 64."),
            ),
            models.CheckConstraint(
                condition=Q(timeout_s__gte=1, timeout_s__lte=120),
                name="endpoint_timeout_range",
                violation_error_message=_("The timeout must be between 1 and 120 seconds."),
            ),
            models.CheckConstraint(
                condition=Q(batch_price_percent__lte=100),
                name="endpoint_batch_percent_range",
                violation_error_message=_("A batched call costs at most 100 percent."),
            ),
            models.CheckConstraint(
                condition=Q(batch_api=False) | Q(kind=EndpointKind.CHAT),
                name="endpoint_batch_is_chat",
                violation_error_message=_("Only chat endpoints are asked in batches."),
            ),
        )

    def __str__(self) -> str:
        return self.name


class ModelCall(models.Model):
    """One answered (or failed) call: the ledger. Append-only; at most one success per scope and request hash.

    A request found here with outcome "ok" is answered from here and never paid again. `scope` is empty for mining
    (the same question has the same answer in every run) and names the run for evaluation, where a repeat is wanted.
    `run` names the run that made the call, as a person reads it.
    """

    OK = "ok"

    endpoint = models.ForeignKey(ModelEndpoint, models.PROTECT, related_name="calls")
    scope = models.CharField(max_length=60, blank=True)
    run = models.CharField(max_length=120, blank=True)
    purpose = models.CharField(max_length=40)
    subject = models.CharField(max_length=80, blank=True)
    request_hash = models.CharField(max_length=64)
    prompt_sha256 = models.CharField(max_length=64, blank=True)
    model_requested = models.CharField(max_length=120)
    model_returned = models.CharField(max_length=120, blank=True)
    outcome = models.CharField(max_length=16)
    http_status = models.PositiveSmallIntegerField(null=True)
    attempts = models.PositiveSmallIntegerField(default=1)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    cost = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    latency_ms = models.PositiveIntegerField(default=0)
    text = models.TextField(blank=True)
    vectors = models.BinaryField(null=True)
    vector_dimensions = models.PositiveIntegerField(default=0)
    raw_reply = models.TextField(blank=True)
    error = models.TextField(blank=True)
    at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-pk",)
        constraints = (
            models.UniqueConstraint(
                fields=["scope", "request_hash"], condition=Q(outcome="ok"), name="model_call_paid_once"
            ),
        )
        indexes = (
            models.Index(fields=["request_hash"], name="model_call_hash"),
            models.Index(fields=["scope", "purpose"], name="model_call_scope"),
            models.Index(fields=["run", "-id"], name="model_call_run"),
        )

    def __str__(self) -> str:
        return f"{self.purpose} {self.request_hash[:12]}"
