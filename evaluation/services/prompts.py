"""The text a run asks with: a release's own bytes, a draft as it would be released, or the frame of both."""

from django.utils.translation import gettext as _

from evaluation.answers import few_shot_prompt, render_user_message, zero_shot_prompt
from evaluation.models import Dataset, Example, InputTemplate, PromptKind
from evaluation.sampling import balanced_shots
from evaluation.selectors.runs import labelled
from pld_app.canonical import sha256_hex
from pld_app.errors import InvalidInput
from rules.models import Release, Ruleset, RulesetStatus, Split, Task
from rules.selectors.rulesets import ruleset_compile


def prompt_text(
    task: Task, kind: PromptKind, ruleset: Ruleset | None = None, release: Release | None = None, shots: str = ""
) -> str:
    """The system prompt of a run; empty for kinds that ask no student. Raises InvalidInput.

    `shots` is the few-shot prompt, which needs the dataset (`few_shot_text`).
    """
    match kind:
        case PromptKind.ZERO_SHOT:
            return zero_shot_prompt(task.preamble, task.labels, task.output_contract)
        case PromptKind.FEW_SHOT:
            return shots
        case PromptKind.DRAFT:
            return _draft_prompt(task, ruleset)
        case PromptKind.RELEASE:
            return _release_prompt(task, release)
        case _:
            return ""


def few_shot_text(task: Task, dataset: Dataset, template: InputTemplate, *, k: int, seed: int) -> str:
    """The prompt that shows `k` train examples of the dataset. Raises InvalidInput when it has fewer."""
    shots = balanced_shots(labelled(dataset.pk, Split.TRAIN), task.labels, k, seed)
    if len(shots) < k:
        text = _("The dataset has %(n)d train examples to show, and %(k)d were asked for.")
        raise InvalidInput(text % {"n": len(shots), "k": k})
    inputs = Example.objects.only("input").in_bulk([shot.example_id for shot in shots])
    rendered = [
        (render_user_message(task.input_fields, inputs[shot.example_id].input, template.text), shot.label)
        for shot in shots
    ]
    return few_shot_prompt(task.preamble, task.labels, rendered, task.output_contract)


def _draft_prompt(task: Task, ruleset: Ruleset | None) -> str:
    """The frozen prompt of a ruleset that has one, else what the compiler of releases makes of its items now."""
    if ruleset is None or ruleset.task_id != task.pk:
        raise InvalidInput(_("Choose a ruleset of this task."))
    if ruleset.status == RulesetStatus.WITHDRAWN:
        raise InvalidInput(_("This ruleset was withdrawn. Choose another one."))
    if ruleset.prompt:
        return ruleset.prompt
    if not ruleset.items.exists():
        raise InvalidInput(_("This ruleset has no instructions yet. Add some first."))
    try:
        return ruleset_compile(ruleset).prompt
    except ValueError as error:
        raise InvalidInput(_("This ruleset cannot be compiled: %(why)s.") % {"why": error}) from error


def _release_prompt(task: Task, release: Release | None) -> str:
    """The release's own bytes, checked against the hash that was signed."""
    if release is None or release.task_id != task.pk:
        raise InvalidInput(_("Choose a release of this task."))
    if sha256_hex(release.prompt) != release.prompt_sha256:
        text = _("The prompt of %(release)s does not match its signed hash. It was not used; tell an auditor.")
        raise InvalidInput(text % {"release": release})
    return release.prompt
