"""Forms of retention periods, legal holds and erasures."""

import re

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import ProofForm
from rules.models import ErasureKind, HoldScope, Task
from rules.models.retention import LEAST_MONTHS, MOST_MONTHS


class RetentionForm(forms.Form):
    task = forms.ModelChoiceField(
        Task.objects.all(), label=_("For"), required=False, empty_label=_("The whole installation")
    )
    months = forms.IntegerField(
        label=_("Months"),
        min_value=LEAST_MONTHS,
        max_value=MOST_MONTHS,
        help_text=_("At least 6; 84 are seven years."),
    )
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))


class HoldForm(forms.Form):
    scope = forms.ChoiceField(label=_("What"), choices=HoldScope.choices)
    task = forms.ModelChoiceField(Task.objects.all(), label=_("Task"), required=False)
    object_type = forms.CharField(
        label=_("Kind of object"),
        max_length=40,
        required=False,
        help_text=_("As events name it: user, trace, instruction, ruleset, release, …"),
    )
    object_id = forms.CharField(label=_("Its id"), max_length=40, required=False)
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))

    def clean(self) -> dict[str, object]:
        said = super().clean() or {}
        scope = said.get("scope")
        if scope == HoldScope.TASK and not said.get("task"):
            self.add_error("task", _("Choose the task."))
        if scope == HoldScope.OBJECT and not (said.get("object_type") and said.get("object_id")):
            self.add_error("object_type", _("Give the kind and the id, as an event of it shows them."))
        return said


class SecondForm(ProofForm):
    """The second person's word: which button was pressed is in the address."""

    seen = forms.BooleanField(label=_("I have read what this is about"))


class HoldReleaseForm(ProofForm):
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))


class ErasureForm(forms.Form):
    kind = forms.ChoiceField(label=_("What"), choices=ErasureKind.choices)
    numbers = forms.CharField(
        label=_("Numbers"),
        max_length=6000,
        help_text=_("Of the events, comments, traces or accounts, separated by commas or spaces."),
    )
    reason = forms.CharField(
        label=_("Ground in law"),
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("It stays on record: write no name and nothing personal into it."),
    )

    def clean_numbers(self) -> list[int]:
        parts = [one for one in re.split(r"[\s,;]+", self.cleaned_data["numbers"]) if one]
        if not all(one.isascii() and one.isdigit() and len(one) < 19 for one in parts):
            raise forms.ValidationError(_("Give whole numbers, separated by commas or spaces."))
        return [int(one) for one in parts]
