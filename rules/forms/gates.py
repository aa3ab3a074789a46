"""Forms of gates: the proposal, the word on it, and the signed exception."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import ProofForm
from pld_app.models import EndpointKind, ModelEndpoint
from rules.hooks import datasets_offered
from rules.models import ExceptionMeaning, GatePolicy, Split, Task


def _share(label: Any, help_text: Any, *, least: str, most: str) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        required=False,
        min_value=Decimal(least),
        max_value=Decimal(most),
        decimal_places=3,
        max_digits=4,
        widget=forms.NumberInput(attrs={"step": "0.001"}),
    )


class GatesForm(ProofForm):
    """The next gates, starting from those in force; an empty field sets no gate. Floors are fields named floor_0, …"""

    expected = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    student = forms.ModelChoiceField(ModelEndpoint.objects.none(), label=_("Student"), required=False)
    dataset_sha256 = forms.ChoiceField(label=_("Dataset"), required=False)
    split = forms.ChoiceField(
        label=_("Split"),
        choices=[(Split.TEST, Split.TEST.label), (Split.VALIDATION, Split.VALIDATION.label)],
        help_text=_("A figure on validation flatters what was chosen on it."),
    )
    minimum_n = forms.IntegerField(
        label=_("Examples, at least"),
        min_value=1,
        help_text=_("With fewer, nothing is shown, so nothing is passed."),
    )
    min_macro_f1 = _share(_("Macro-F1, at least"), _("The figure itself, from 0 to 1."), least="0.001", most="1")
    max_drop = _share(
        _("Drop of macro-F1 against production, at most"),
        _("The lower end of the paired 95% interval must stay within it: a drop that cannot be ruled out fails."),
        least="0",
        most="0.999",
    )
    max_malformed_rate = _share(
        _("Share of answers that cannot be used, at most"),
        _("Malformed or missing; to abstain is an answer."),
        least="0",
        most="0.999",
    )
    max_prompt_tokens = forms.IntegerField(label=_("Tokens of the prompt, at most"), min_value=1, required=False)
    staging_too = forms.BooleanField(label=_("Staging asks for them too"), required=False)
    revalidate_days = forms.IntegerField(
        label=_("Re-validate after days"),
        min_value=1,
        max_value=3650,
        required=False,
        help_text=_("The release in production is due again so long after it was last shown to pass. Empty: never."),
    )
    grace_days = forms.IntegerField(
        label=_("Days of grace"),
        min_value=0,
        max_value=365,
        help_text=_("So long after the date other releases can still be published."),
    )
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))

    def __init__(self, *args: Any, task: Task, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.labels = list(task.labels)
        chat = ModelEndpoint.objects.filter(kind=EndpointKind.CHAT, is_active=True)
        self.fields["student"].queryset = chat.order_by("name")  # type: ignore[attr-defined]  # a model choice field
        offers = [(one.sha256, f"{one.name} ({one.sha256[:8]})") for one in datasets_offered(task)]
        self.fields["dataset_sha256"].choices = [("", "---------"), *offers]  # type: ignore[attr-defined]
        floors = {
            f"floor_{place}": _share(_("F1 of %(label)s, at least") % {"label": label}, "", least="0.001", most="1")
            for place, label in enumerate(self.labels)
        }
        for name, field in floors.items():
            self.fields[name] = field
        self.order_fields([*self._before_floors(), *floors, "staging_too", "revalidate_days", "grace_days", "reason"])

    @staticmethod
    def _before_floors() -> list[str]:
        names = ("expected", "student", "dataset_sha256", "split", "minimum_n", "min_macro_f1", "max_drop")
        return [*names, "max_malformed_rate", "max_prompt_tokens"]

    @classmethod
    def of(cls, task: Task, policy: GatePolicy | None) -> "GatesForm":
        values: dict[str, Any] = {"expected": 0, "split": Split.TEST, "minimum_n": 100, "grace_days": 14}
        values["student"] = task.student_id
        if policy is not None:
            values |= {name: getattr(policy, name) for name in cls.base_fields if hasattr(policy, name)}
            floors = {f"floor_{n}": policy.label_floors.get(label) for n, label in enumerate(task.labels)}
            values |= floors | {"expected": policy.version, "student": policy.student_id}
        return cls(task=task, initial=values | {"reason": ""}, auto_id="gates-%s")

    @property
    def points(self) -> dict[str, Any]:
        """What `gates_propose` takes; only after `is_valid`."""
        said = self.said
        floors = {label: said.pop(f"floor_{place}") for place, label in enumerate(self.labels)}
        return said | {"label_floors": {label: str(floor) for label, floor in floors.items() if floor is not None}}


class GatesDecisionForm(ProofForm):
    """The proof, and the version that was shown; which button was pressed is in the address."""

    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)


class GateExceptionForm(ProofForm):
    """A signed exception: until the end of a day (UTC), for the gates that were shown."""

    gates = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    meaning = forms.ChoiceField(
        label=_("What my signature means"), choices=ExceptionMeaning.choices, widget=forms.RadioSelect
    )
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))
    until = forms.DateField(
        label=_("Until the end of"),
        widget=forms.DateInput(attrs={"type": "date"}),
        help_text=_("UTC, at most 90 days off. Afterwards the release is flagged."),
    )

    @property
    def expires_at(self) -> datetime:
        day = self.cleaned_data["until"]
        return datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
