"""Choosing what to evaluate. One field names the prompt: the baseline, a ruleset or a release."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evaluation.models import PromptKind
from evaluation.services.runs import SPLITS
from pld_app.models import EndpointKind, ModelEndpoint
from rules.models import Release, Ruleset, RulesetStatus, Task

SHOWN = 100
"""Newest rulesets and releases to choose from."""


class EvaluationForm(forms.Form):
    prompt = forms.ChoiceField(label=gettext_lazy("Prompt"))
    student = forms.ModelChoiceField(ModelEndpoint.objects.none(), label=gettext_lazy("Student"), empty_label=None)
    split = forms.ChoiceField(
        label=gettext_lazy("Split"),
        choices=[(split.value, split.label) for split in SPLITS],
        widget=forms.RadioSelect,
        initial=SPLITS[0].value,
        help_text=gettext_lazy("Choose between prompts on validation; keep test for the figures of a release."),
    )
    sample_size = forms.IntegerField(
        label=gettext_lazy("Sample size"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=gettext_lazy("Left empty: every example. A sample keeps each label's share."),
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"),
        initial=0,
        min_value=0,
        max_value=2**31 - 1,
        help_text=gettext_lazy("Of the sample, the student and the intervals: the same seed asks the same."),
    )

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rulesets = {
            one.number: one for one in task.rulesets.exclude(status=RulesetStatus.WITHDRAWN).defer("manifest")[:SHOWN]
        }
        self._releases = {one.version: one for one in task.releases.all()[:SHOWN]}
        prompt, student = self.fields["prompt"], self.fields["student"]
        assert isinstance(prompt, forms.ChoiceField)
        assert isinstance(student, forms.ModelChoiceField)
        prompt.choices = self._prompts()
        student.queryset = ModelEndpoint.objects.filter(kind=EndpointKind.CHAT, is_active=True)
        student.initial = task.student_id

    def _prompts(self) -> list[Any]:  # choices and groups of them, as Django takes them
        found: list[Any] = [(PromptKind.ZERO_SHOT.value, _("Zero-shot baseline: no instructions"))]
        if self._releases:
            found.append(
                (
                    _("Releases"),
                    [(f"release:{one.version}", _("Release %(v)s") % {"v": one}) for one in self._releases.values()],
                )
            )
        if self._rulesets:
            found.append(
                (
                    _("Rulesets"),
                    [
                        (f"draft:{one.number}", f"{one.number}. {one.name}, {one.get_status_display().lower()}")
                        for one in self._rulesets.values()
                    ],
                )
            )
        return found

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of evaluation_run_create besides task and user; only after is_valid."""
        kind, _colon, number = self.cleaned_data["prompt"].partition(":")
        ruleset: Ruleset | None = self._rulesets.get(int(number)) if kind == PromptKind.DRAFT else None
        release: Release | None = self._releases.get(int(number)) if kind == PromptKind.RELEASE else None
        chosen = {name: self.cleaned_data[name] for name in ("student", "split", "sample_size", "seed")}
        return {"kind": PromptKind(kind), "ruleset": ruleset, "release": release, **chosen}


class ErrorFilter(forms.Form):
    """Which wrong answers to list; a label the task does not have is an error, not an empty list."""

    gold = forms.ChoiceField(required=False, label=gettext_lazy("Gold label"))
    predicted = forms.ChoiceField(required=False, label=gettext_lazy("Answer"))

    def __init__(self, *args: Any, labels: list[str], nothing: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        gold, predicted = self.fields["gold"], self.fields["predicted"]
        assert isinstance(gold, forms.ChoiceField)
        assert isinstance(predicted, forms.ChoiceField)
        gold.choices = [("", _("All")), *((label, label) for label in labels)]
        predicted.choices = [*gold.choices, (nothing, _("No usable answer"))]
