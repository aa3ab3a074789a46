"""Choosing what to evaluate. One field names the prompt: a baseline, a ruleset or a release."""

from typing import Any

from django import forms
from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evaluation.models import DatasetState, PromptKind
from evaluation.services.datasets import MAX_NAME
from evaluation.services.groups import MOST_RUNS
from evaluation.services.input_templates import MAX_TEMPLATE_CHARS
from evaluation.services.runs import MOST_REPEATS, MOST_SHOTS, SPLITS, Conditions, PromptChoice
from pld_app.models import EndpointKind, ModelEndpoint
from rules.models import Release, Ruleset, RulesetStatus, Task

SHOWN = 100
"""Newest rulesets, releases and datasets to choose from."""
_BASELINES = (
    (PromptKind.ZERO_SHOT, gettext_lazy("Zero-shot baseline: no instructions")),
    (PromptKind.FEW_SHOT, gettext_lazy("Few-shot baseline: train examples instead of instructions")),
    (PromptKind.NEAREST, gettext_lazy("Vote of the nearest train examples: no student")),
    (PromptKind.MAJORITY, gettext_lazy("Most frequent train label: no student")),
    (PromptKind.TEACHER, gettext_lazy("Teacher's own labels, where examples carry them")),
)


class _AskedForm(forms.Form):
    """Fields that one run and a comparison share; the order on the page is set by the forms below."""

    split = forms.ChoiceField(
        label=gettext_lazy("Split"),
        choices=[(split.value, split.label) for split in SPLITS],
        widget=forms.RadioSelect,
        initial=SPLITS[0].value,
        help_text=gettext_lazy("Choose between prompts on validation; test is for a release and baselines beside it."),
    )
    dataset = forms.ChoiceField(label=gettext_lazy("Dataset"), required=False)
    sample_size = forms.IntegerField(
        label=gettext_lazy("Sample size"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=gettext_lazy("Left empty: every example. A sample keeps each label's share."),
    )
    shots = forms.IntegerField(
        label=gettext_lazy("Examples shown (few-shot)"),
        required=False,
        min_value=1,
        max_value=MOST_SHOTS,
        initial=6,
        help_text=gettext_lazy("From the train split, each label as often as any other."),
    )
    neighbours = forms.IntegerField(
        label=gettext_lazy("Neighbours that vote"), required=False, min_value=1, max_value=MOST_SHOTS, initial=5
    )
    repeats = forms.IntegerField(
        label=gettext_lazy("Times to ask"),
        required=False,
        initial=1,
        min_value=1,
        max_value=MOST_REPEATS,
        help_text=gettext_lazy("More than once shows how much the answers of a student vary."),
    )
    temperature = forms.FloatField(
        label=gettext_lazy("Temperature"), required=False, initial=0, min_value=0, max_value=2, step_size=0.1
    )
    seed = forms.IntegerField(
        label=gettext_lazy("Seed"),
        initial=0,
        min_value=0,
        max_value=2**31 - 1,
        help_text=gettext_lazy("Of the sample, the shown examples, the student and the intervals."),
    )

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rulesets = {
            one.number: one for one in task.rulesets.exclude(status=RulesetStatus.WITHDRAWN).defer("manifest")[:SHOWN]
        }
        self._releases = {one.version: one for one in task.releases.all()[:SHOWN]}
        self._datasets = {str(one.number): one for one in task.datasets.filter(state=DatasetState.FROZEN)[:SHOWN]}
        dataset = self.fields["dataset"]
        assert isinstance(dataset, forms.ChoiceField)
        dataset.choices = [
            ("", _("The imported traces as they are now")),
            *((number, f"{number}. {one.name}") for number, one in self._datasets.items()),
        ]

    def students(self) -> Any:
        """The endpoints that can be asked."""
        return ModelEndpoint.objects.filter(Q(kind=EndpointKind.CHAT, is_active=True))

    def prompts(self) -> list[Any]:  # choices and groups of them, as Django takes them
        found: list[Any] = []
        if self._releases:
            named = [(f"release:{one.version}", _("Release %(v)s") % {"v": one}) for one in self._releases.values()]
            found.append((_("Releases"), named))
        if self._rulesets:
            drafts = [
                (f"draft:{one.number}", f"{one.number}. {one.name}, {one.get_status_display().lower()}")
                for one in self._rulesets.values()
            ]
            found.append((_("Rulesets"), drafts))
        return [(_("Baselines"), [(kind.value, words) for kind, words in _BASELINES]), *found]

    def choice_of(self, prompt: str) -> PromptChoice:
        """What a value of the prompt field stands for; only after is_valid."""
        kind, _colon, number = prompt.partition(":")
        ruleset: Ruleset | None = self._rulesets.get(int(number)) if kind == PromptKind.DRAFT else None
        release: Release | None = self._releases.get(int(number)) if kind == PromptKind.RELEASE else None
        k = {PromptKind.FEW_SHOT: "shots", PromptKind.NEAREST: "neighbours"}.get(PromptKind(kind))
        return PromptChoice(
            kind=PromptKind(kind), ruleset=ruleset, release=release, k=self._or_initial(k) if k is not None else None
        )

    def conditions(self) -> Conditions:
        """What is the same for every prompt; only after is_valid."""
        found = self.cleaned_data
        return Conditions(
            split=found["split"],
            dataset=self._datasets.get(found["dataset"]),
            sample_size=found["sample_size"],
            seed=found["seed"],
            temperature=float(found["temperature"] or 0),
            repeats=self._or_initial("repeats"),
        )

    def _or_initial(self, name: str) -> int:
        return int(self.cleaned_data[name] or self.fields[name].initial)


class EvaluationForm(_AskedForm):
    """One run."""

    prompt = forms.ChoiceField(label=gettext_lazy("Prompt"))
    student = forms.ModelChoiceField(ModelEndpoint.objects.none(), label=gettext_lazy("Student"), required=False)
    field_order = ("prompt", "student", "split")

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, task=task, **kwargs)
        prompt, student = self.fields["prompt"], self.fields["student"]
        assert isinstance(prompt, forms.ChoiceField)
        assert isinstance(student, forms.ModelChoiceField)
        prompt.choices = self.prompts()
        student.queryset = self.students()
        student.initial = task.student_id

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of evaluation_run_create besides task and user; only after is_valid."""
        choice, conditions = self.choice_of(self.cleaned_data["prompt"]), self.conditions()
        return {**vars(choice), **vars(conditions), "student": self.cleaned_data["student"]}


class GroupForm(_AskedForm):
    """Prompts and students of a comparison."""

    prompts_chosen = forms.MultipleChoiceField(
        label=gettext_lazy("Prompts"), widget=forms.CheckboxSelectMultiple, initial=[PromptKind.ZERO_SHOT.value]
    )
    students_chosen = forms.ModelMultipleChoiceField(
        ModelEndpoint.objects.none(),
        label=gettext_lazy("Students"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("Each prompt that needs a student is asked of each of these."),
    )
    field_order = ("prompts_chosen", "students_chosen", "split")

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, task=task, **kwargs)
        prompts, students = self.fields["prompts_chosen"], self.fields["students_chosen"]
        assert isinstance(prompts, forms.MultipleChoiceField)
        assert isinstance(students, forms.ModelMultipleChoiceField)
        prompts.choices = self.prompts()
        prompts.help_text = _("A comparison holds at most %(n)d runs.") % {"n": MOST_RUNS}
        students.queryset = self.students()
        students.initial = [task.student_id] if task.student_id else []

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of group_estimate besides the task; only after is_valid."""
        return {
            "prompts": [self.choice_of(prompt) for prompt in self.cleaned_data["prompts_chosen"]],
            "students": list(self.cleaned_data["students_chosen"]),
            "conditions": self.conditions(),
        }


class DatasetForm(forms.Form):
    """A new dataset: of the traces, or of a file."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=MAX_NAME)
    file = forms.FileField(
        label=gettext_lazy("File of examples"),
        required=False,
        help_text=gettext_lazy(
            "JSON Lines or CSV in UTF-8, plain or gzipped, with id, input, label and split (format example.v1). "
            "Left empty: the imported traces as they are now."
        ),
    )
    copies = forms.ChoiceField(
        label=gettext_lazy("An input that stands in two splits of the traces"),
        choices=[
            ("leave_out", gettext_lazy("is left out of the earlier split: test keeps it, then validation")),
            ("refuse", gettext_lazy("is a reason to refuse the dataset, with the ids named")),
        ],
        initial="leave_out",
        required=False,
        widget=forms.RadioSelect,
        help_text=gettext_lazy("A file is always refused for it, with the lines named."),
    )


class InputTemplateForm(forms.Form):
    """How the input fields become the message to the student."""

    text = forms.CharField(
        label=gettext_lazy("Template"),
        required=False,
        max_length=MAX_TEMPLATE_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false"}),
    )
    abstention_label = forms.CharField(
        label=gettext_lazy("Answer for “I do not know”"),
        required=False,
        max_length=60,
        help_text=gettext_lazy("Left empty: the student must choose a label. It counts as wrong, and is counted."),
    )


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
