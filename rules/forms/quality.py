"""Forms of the review policy, of check items and of lifting a pause: they say what was typed, the services decide."""

from django import forms
from django.utils.translation import gettext_lazy as _

from rules.models import ReviewPolicy, SeedKind
from rules.services.review_policy import FIELDS
from rules.services.seeds import MAKE_MAX


class ReviewPolicyForm(forms.ModelForm[ReviewPolicy]):
    """The next version, starting from the one in force."""

    expected = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    class Meta:
        model = ReviewPolicy
        fields = FIELDS


class SeedsForm(forms.Form):
    count = forms.IntegerField(
        label=_("How many, drawn at random"),
        min_value=1,
        max_value=MAKE_MAX,
        initial=5,
        help_text=_("One in five is left right; the others are changed in one of the ways below."),
    )


class SeedForm(forms.Form):
    source = forms.IntegerField(label=_("From instruction"), min_value=1)
    kind = forms.ChoiceField(label=_("Changed how"), choices=SeedKind)


class LiftForm(forms.Form):
    note = forms.CharField(label=_("What you found out and agreed"), max_length=2000, required=False)
