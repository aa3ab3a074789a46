"""The form of the plan: when production is asked again, and what that may cost."""

from decimal import Decimal

from django import forms
from django.utils.translation import gettext_lazy as _

from evaluation.models import ReevaluationPlan
from rules.models import Split


class PlanForm(forms.Form):
    expected = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    split = forms.ChoiceField(
        label=_("Split"),
        choices=[(Split.TEST, Split.TEST.label), (Split.VALIDATION, Split.VALIDATION.label)],
        help_text=_("Where gates are in force, their split is asked about."),
    )
    every_hours = forms.IntegerField(
        label=_("Every so many hours"),
        min_value=1,
        max_value=8760,
        required=False,
        help_text=_("Empty: not by the clock."),
    )
    on_change = forms.BooleanField(
        label=_("When the student's model, the dataset or the release in production changes"), required=False
    )
    budget = forms.DecimalField(
        label=_("Budget for 30 days"),
        min_value=Decimal(0),
        max_digits=10,
        decimal_places=2,
        help_text=_("In the currency of the endpoints' prices. With 0 only endpoints without a price are asked."),
    )

    @classmethod
    def of(cls, plan: ReevaluationPlan | None) -> "PlanForm":
        values: dict[str, object] = {"expected": 0, "split": Split.TEST, "budget": Decimal(0)}
        if plan is not None:
            values = {name: getattr(plan, name) for name in ("split", "every_hours", "on_change", "budget")}
            values["expected"] = plan.version
        return cls(initial=values, auto_id="plan-%s")
