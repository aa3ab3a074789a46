"""A run as a promptfoo configuration, so that others can ask the same of the same model with a tool of their own.

Texts of prompts and examples are values inside nested variables: promptfoo fills them in and reads no template in them,
and only top-level variables are looked up as `file://` paths. The answer is checked as JSON against the schema, and its
label is compared with the example's own. The file is YAML whose scalars are JSON strings.
"""

import json
import re
from collections.abc import Iterable, Iterator

from evaluation.answers import answer_schema
from evaluation.models import EvaluationRun, Example
from evaluation.services.asking import answer_tokens, rendered_message

SCHEMA_URL = "https://promptfoo.dev/config-schema.json"
# Characters that JSON leaves as they are and YAML does not take.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_PROMPT = [
    {"role": "system", "content": "{{system.text}}"},
    {"role": "user", "content": "{{example.message}}"},
]
_SAME_LABEL = (
    "JSON.parse(typeof output === 'string' ? output : JSON.stringify(output)).label === context.vars.example.label"
)


def promptfoo_lines(run: EvaluationRun, examples: Iterable[Example]) -> Iterator[str]:
    """The file in pieces: one test an example, in the order given. ValueError for a run that asks no student."""
    if run.student is None:
        raise ValueError("This run asked no student.")
    yield _head(run)
    for example in examples:
        values = {
            "id": example.external_id,
            "label": example.label,
            "message": rendered_message(run, example.input),
        }
        yield f"  - description: {scalar(example.external_id)}\n    vars:\n      example: {scalar(values)}\n"


def scalar(value: object) -> str:
    """A value as JSON that is YAML too."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def _head(run: EvaluationRun) -> str:
    assert run.student is not None
    labels = [*run.labels, *([run.abstention_label] if run.abstention_label else [])]
    schema = answer_schema(labels)
    answer = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    config: dict[str, object] = {
        "apiBaseUrl": run.student.base_url,
        "temperature": run.temperature,
        "seed": run.seed,
        "max_tokens": answer_tokens(labels),
        "response_format": answer,
    }
    # The name of the variable, never its value.
    config |= {"apiKeyEnvar": run.student.api_key_env} if run.student.api_key_env else {"apiKeyRequired": False}
    title = f"{run.task.slug}, evaluation {run.number}: {run.prompt_name}, {run.split}, prompt {run.prompt_sha256}"
    return f"""\
# yaml-language-server: $schema={SCHEMA_URL}
description: {scalar(title)}
prompts:
  - id: {scalar(f"prompt-{run.prompt_sha256[:12]}")}
    label: {scalar(run.prompt_name)}
    raw: {scalar(json.dumps(_PROMPT))}
providers:
  - id: {scalar(f"openai:{'responses' if run.student.api == 'responses' else 'chat'}:{run.student_model}")}
    label: {scalar(run.student_model)}
    config: {scalar(config)}
evaluateOptions:
  maxConcurrency: {run.student.concurrency}
  repeat: {run.repeats}
defaultTest:
  vars:
    system: {scalar({"text": run.prompt})}
  assert:
    - type: is-json
      value: {scalar(schema)}
    - type: javascript
      value: {scalar(_SAME_LABEL)}
tests:
"""
