"""Asking the student's server how many tokens a ruleset's prompt has: a job, since no page waits for a server."""

from django.db import transaction

from pld_app.canonical import sha256_hex
from pld_app.jobs import JobResult, Lease, job_enqueue
from pld_app.model_edge import EndpointMisconfigured
from pld_app.model_edge.ledger import endpoint_config
from pld_app.model_edge.tokenizer import tokenizer_count
from rules.models import PromptSize, Ruleset, RulesetStatus
from rules.selectors.rulesets import ruleset_compile, ruleset_items

JOB_KIND = "prompt_size"


def prompt_size_ask(ruleset: Ruleset) -> None:
    """Have the prompt of this ruleset, as it now stands, counted soon; in the transaction that changed it."""
    if ruleset.task.student_id is not None:
        key = f"prompt-size:{ruleset.pk}:{ruleset.version}:{ruleset.task.student_id}"
        job_enqueue(kind=JOB_KIND, subject_id=ruleset.pk, key=key)


def prompt_size_count(ruleset_id: int, lease: Lease) -> JobResult:
    """Count and keep. A student without a tokenizer leaves no row, and a known prompt is not asked about again."""
    ruleset = Ruleset.objects.select_related("task__student").get(pk=ruleset_id)
    student, prompt = ruleset.task.student, _prompt_of(ruleset)
    if student is None or not prompt:
        return JobResult.DONE
    known = {"prompt_sha256": sha256_hex(prompt), "endpoint": student, "model": student.model}
    if PromptSize.objects.filter(**known).exists():
        return JobResult.DONE
    try:
        tokens = tokenizer_count(endpoint_config(student), prompt)
    except EndpointMisconfigured:
        return JobResult.DONE
    if tokens is not None:
        with transaction.atomic():
            lease.check()
            PromptSize.objects.get_or_create(**known, defaults={"tokens": tokens})
    return JobResult.DONE


def prompt_size_failed(ruleset_id: int, error: str) -> None:
    """Nothing is told: the approximation stands, and the next change asks again."""


def _prompt_of(ruleset: Ruleset) -> str:
    """The frozen prompt, or that of the draft as it would be frozen now; empty when it does not compile."""
    if ruleset.status != RulesetStatus.DRAFT:
        return ruleset.prompt
    try:
        return ruleset_compile(ruleset, ruleset_items(ruleset)).prompt
    except ValueError:
        return ""
