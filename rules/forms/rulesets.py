"""Forms of composing, signing and withdrawing."""

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import PasswordField, ProofForm
from rules.models import Meaning, Ruleset

__all__ = [
    "AddForm",
    "MoveForm",
    "PasswordField",
    "RulesetForm",
    "SignForm",
    "VersionForm",
    "WithdrawForm",
    "WithdrawFrozenForm",
]


class RulesetForm(forms.ModelForm[Ruleset]):
    start = forms.ChoiceField(
        label=_("Start with"),
        choices=(
            ("approved", _("Every approved instruction, topic by topic")),
            ("previous", _("The order of the previous ruleset, new ones at the end")),
        ),
        initial="approved",
        widget=forms.RadioSelect,
    )
    key = forms.UUIDField(required=False, widget=forms.HiddenInput)
    """Made with the page: sending the same page again opens the same draft."""

    class Meta:
        model = Ruleset
        fields = ("name",)
        help_texts = {"name": _("For people, e.g. the season or the reason. It is part of what is signed.")}

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        self.fields["name"].required = False


class VersionForm(forms.Form):
    """The version of the draft that was shown: a form opened on an older one is refused."""

    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)


class AddForm(VersionForm):
    instruction = forms.IntegerField(min_value=1, widget=forms.HiddenInput)


class MoveForm(VersionForm):
    to = forms.IntegerField(min_value=0, max_value=1_000_000)


class WithdrawForm(forms.Form):
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))


class WithdrawFrozenForm(ProofForm, WithdrawForm):
    """What is frozen takes a proof of who withdraws it."""


class SignForm(ProofForm):
    """No meaning is preselected: it has to be chosen by the person who signs."""

    meaning = forms.ChoiceField(label=_("My signature means"), choices=Meaning.choices, widget=forms.RadioSelect)
    conditions = forms.CharField(
        label=_("Conditions, or why you reject it"),
        max_length=1000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_(
            "Only with an approval on conditions or a rejection. It is part of the record and of every export."
        ),
    )
    manifest_sha256 = forms.CharField(widget=forms.HiddenInput)

    def for_author(self) -> "SignForm":
        """For somebody who worked on the ruleset: the one meaning that is theirs, still to be chosen."""
        self._offer([Meaning.AUTHORED])
        return self

    def for_signer(self) -> "SignForm":
        self._offer([one for one in Meaning if one != Meaning.AUTHORED])
        return self

    def _offer(self, meanings: list[Meaning]) -> None:
        self.fields["meaning"].choices = [(one.value, one.label) for one in meanings]  # type: ignore[attr-defined]  # a choice field
