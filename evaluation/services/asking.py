"""One question to the student, as a run puts it."""

from collections.abc import Mapping

from django.utils.translation import gettext as _

from evaluation.answers import answer_schema, render_user_message
from evaluation.models import EvaluationRun
from pld_app.errors import InvalidInput
from pld_app.model_edge import CallRequest, ChatBody, Message

PURPOSE = "evaluate"


def example_request(
    run: EvaluationRun, key: str, values: Mapping[str, str], *, repeat: int = 0, prompt: str | None = None
) -> CallRequest:
    """One question. The prompt comes first and is the same each time, so servers reuse their cache.

    `key` names the example in the ledger. Each repetition has the run's seed plus its number. `prompt` asks the same
    with another text, for what compares prompts. Raises InvalidInput for an example that lacks a field.
    """
    labels = [*run.labels, *([run.abstention_label] if run.abstention_label else [])]
    try:
        content = rendered_message(run, values)
    except ValueError as error:
        raise InvalidInput(_("Example %(key)s cannot be asked about: %(why)s") % {"key": key, "why": error}) from error
    body = ChatBody(
        messages=(Message("system", run.prompt if prompt is None else prompt), Message("user", content)),
        schema_name="answer",
        schema=answer_schema(labels),
        temperature=run.temperature,
        seed=run.seed + repeat,
        max_tokens=answer_tokens(labels),
    )
    return CallRequest(key=key, purpose=PURPOSE, body=body)


def rendered_message(run: EvaluationRun, values: Mapping[str, str]) -> str:
    """The user message for an example's input fields. ValueError if one is missing."""
    return render_user_message(run.task.input_fields, values, run.template)


def answer_tokens(labels: list[str]) -> int:
    """Room for the JSON around the longest label, at the worst rate of one token a byte."""
    return 32 + max(len(label.encode()) for label in labels)
