"""Forms of conflict resolution: a new loop, its budget, and a reviewer's own instruction."""

from typing import Any

from django import forms
from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evaluation.forms import SHOWN
from evaluation.models import DatasetState
from evaluation.services.loops import MOST_ROUNDS, LoopChoice
from pld_app.models import EndpointKind, ModelEndpoint
from rules.models import RulesetStatus, Task


class LoopForm(forms.Form):
    """What a loop begins from, who proposes, and how far it may go."""

    ruleset = forms.ChoiceField(
        label=gettext_lazy("Ruleset to begin from"),
        help_text=gettext_lazy("Its instructions in its order, each with the text that is approved at that moment."),
    )
    dataset = forms.ChoiceField(
        label=gettext_lazy("Dataset"),
        required=False,
        help_text=gettext_lazy("Only its validation split is used; the test split stays unseen."),
    )
    student = forms.ModelChoiceField(ModelEndpoint.objects.none(), label=gettext_lazy("Student"))
    resolver = forms.ModelChoiceField(
        ModelEndpoint.objects.none(),
        label=gettext_lazy("Resolver"),
        required=False,
        help_text=gettext_lazy("The model that proposes new texts. Left empty: reviewers mend by hand."),
    )
    max_rounds = forms.IntegerField(
        label=gettext_lazy("Rounds at most"),
        min_value=1,
        max_value=MOST_ROUNDS,
        initial=2,
        help_text=gettext_lazy("Rounds that propose; a last measurement follows them."),
    )
    is_automatic = forms.BooleanField(
        label=gettext_lazy("Begin the next round by itself once every proposal is decided"), required=False
    )
    sample_size = forms.IntegerField(
        label=gettext_lazy("Sample size"),
        required=False,
        min_value=1,
        max_value=1_000_000,
        help_text=gettext_lazy("Left empty: every validation example. A sample keeps each label's share."),
    )
    max_calls = forms.IntegerField(
        label=gettext_lazy("Most calls"),
        required=False,
        min_value=1,
        max_value=2**31 - 1,
        help_text=gettext_lazy("Of student and resolver over all rounds. With both limits empty: the estimate."),
    )
    max_cost = forms.DecimalField(
        label=gettext_lazy("Most money"), required=False, min_value=0, max_digits=14, decimal_places=6
    )

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        usable = task.rulesets.exclude(status=RulesetStatus.WITHDRAWN).filter(items__isnull=False).distinct()
        self._rulesets = {str(one.number): one for one in usable.defer("manifest")[:SHOWN]}
        self._datasets = {str(one.number): one for one in task.datasets.filter(state=DatasetState.FROZEN)[:SHOWN]}
        self._choices(
            "ruleset", [(n, f"{n}. {one.name}, {one.get_status_display()}") for n, one in self._rulesets.items()]
        )
        now = ("", _("The imported traces as they are now"))
        self._choices("dataset", [now, *((n, f"{n}. {one.name}") for n, one in self._datasets.items())])
        chat = ModelEndpoint.objects.filter(Q(kind=EndpointKind.CHAT, is_active=True))
        for name, initial in (("student", task.student_id), ("resolver", task.teacher_id)):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset, field.initial = chat, initial

    def _choices(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    @property
    def has_rulesets(self) -> bool:
        return bool(self._rulesets)

    def choice(self) -> LoopChoice:
        """Only after is_valid."""
        found = self.cleaned_data
        plain = ("student", "resolver", "sample_size", "max_rounds", "is_automatic", "max_calls", "max_cost")
        return LoopChoice(
            ruleset=self._rulesets[found["ruleset"]],
            dataset=self._datasets.get(found["dataset"]),
            **{name: found[name] for name in plain},
        )


class CandidateForm(forms.Form):
    """A reviewer's own instruction for failures that none speaks to; `refused` says why the service did not take it."""

    text = forms.CharField(
        label=gettext_lazy("The rule in your words"),
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 4, "class": "rule-input"}),
        help_text=gettext_lazy(
            "Of the form “If …, then label …”, general enough for other inputs, without names or numbers of these. "
            "A second reviewer approves it. At most 4,000 characters."
        ),
    )
    label = forms.ChoiceField(label=gettext_lazy("Label it gives"))
    note = forms.CharField(
        label=gettext_lazy("Why"),
        required=False,
        max_length=4_000,
        help_text=gettext_lazy("For the second reviewer."),
    )
    refused: str = ""

    def __init__(self, *args: Any, labels: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        label = self.fields["label"]
        assert isinstance(label, forms.ChoiceField)
        label.choices = [(one, one) for one in labels]
