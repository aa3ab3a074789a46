"""Forms of training records; they only parse."""

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.models import Domain, User
from rules.forms.assignments import PersonField, reviewers


class TrainingForm(forms.Form):
    person = PersonField(label=_("Who"), queryset=User.objects.none())
    domain = forms.ChoiceField(label=_("Domain"), choices=Domain)
    expires_on = forms.DateField(
        label=_("Expires on"),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
        help_text=_("From this day (UTC) it no longer counts. People are told 14 days and one day before."),
    )
    note = forms.CharField(
        label=_("What it rests on"), max_length=300, help_text=_("Such as the course and when it was passed.")
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # Django's own arguments, passed on
        field = self.fields["person"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = reviewers()


class TrainingEndForm(forms.Form):
    note = forms.CharField(label=_("Why it ends"), max_length=300)
