"""Choosing what to leave out of which run's prompt, and what that may take."""

import re
from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evaluation.models import AblationOrder
from evaluation.selectors.ablations import ablatable_runs
from evaluation.services.ablations import AblationChoice
from rules.models import Task

SHOWN = 100
"""Newest runs to choose from."""
MOST_CALLS = 2_000
_SEPARATED = re.compile(r"[\s,;#]+")


class RaiseForm(forms.Form):
    """How much a paused ablation may use in all."""

    max_calls = forms.IntegerField(
        label=gettext_lazy("Most calls"),
        min_value=1,
        max_value=2**31 - 1,
        help_text=gettext_lazy("In all, with those already made."),
    )
    max_cost = forms.DecimalField(
        label=gettext_lazy("Most money"),
        required=False,
        min_value=0,
        max_digits=14,
        decimal_places=6,
        help_text=gettext_lazy("In the currency of the endpoint's prices. Empty: no limit on money."),
    )


class AblationForm(RaiseForm):
    """A finished run, and which of its instructions to leave out."""

    run = forms.ChoiceField(
        label=gettext_lazy("Compare with the answers of"),
        help_text=gettext_lazy(
            "A finished run of a ruleset or release: its prompt, student and examples are asked about."
        ),
    )
    order = forms.ChoiceField(
        label=gettext_lazy("If the budget is not enough for every instruction"),
        choices=[(one.value, one.label) for one in (AblationOrder.SUPPORT, AblationOrder.CONFLICT)],
        initial=AblationOrder.SUPPORT.value,
        widget=forms.RadioSelect,
    )
    picked = forms.CharField(
        label=gettext_lazy("Only these instructions"),
        required=False,
        max_length=2_000,
        help_text=gettext_lazy("Their numbers, such as 3, 14. Empty: as many as the budget is enough for."),
    )
    field_order = ("run", "picked", "order", "max_calls", "max_cost")

    def __init__(self, *args: Any, task: Task, run: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._runs = {str(one.number): one for one in ablatable_runs(task)[:SHOWN]}
        runs = self.fields["run"]
        assert isinstance(runs, forms.ChoiceField)
        runs.choices = [(number, self._name(number)) for number in self._runs]
        runs.initial = run if run in self._runs else None
        self.fields["max_calls"].initial = MOST_CALLS
        self.fields["max_calls"].help_text = _(
            "One instruction takes a call for each example. Whole instructions only."
        )

    def _name(self, number: str) -> str:
        run = self._runs[number]
        values = {"run": number, "prompt": run.prompt_name, "student": run.student_name, "split": run.split, "n": run.n}
        return _("Run %(run)s: %(prompt)s · %(student)s · %(split)s · n = %(n)d") % values

    def clean_picked(self) -> tuple[int, ...]:
        words = [word for word in _SEPARATED.split(self.cleaned_data["picked"]) if word]
        if not all(word.isdecimal() and len(word) < 9 for word in words):
            raise forms.ValidationError(_("Write numbers of instructions, separated by commas."))
        return tuple(int(word) for word in words)

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of ablation_plan; only after is_valid."""
        found = self.cleaned_data
        choice = AblationChoice(
            order=AblationOrder(found["order"]),
            picked=found["picked"],
            max_calls=found["max_calls"],
            max_cost=found["max_cost"],
        )
        return {"run": self._runs[found["run"]], "choice": choice}
