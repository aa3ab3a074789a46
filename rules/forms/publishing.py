"""Forms of releases, channels and tokens."""

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import ProofForm
from rules.models import ChannelName, PromptToken, TokenScope


class PublishForm(ProofForm):
    """Which release goes to which channel; `newest` is what the channel's history ended with when it was shown."""

    newest = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    channel = forms.ChoiceField(choices=ChannelName.choices, widget=forms.HiddenInput)
    release = forms.TypedChoiceField(label=_("Release"), coerce=int)


class RollbackForm(PublishForm):
    reason = forms.CharField(label=_("Why"), max_length=300)


class TokenForm(forms.ModelForm[PromptToken]):
    """A token that reads prompts, unless something else is chosen."""

    scope = forms.ChoiceField(
        label=_("What it is for"), choices=TokenScope.choices, initial=TokenScope.PROMPT, required=False
    )

    class Meta:
        model = PromptToken
        fields = ("name", "scope")
        help_texts = {"name": _("The service that will use it.")}

    def clean_scope(self) -> str:
        return self.cleaned_data["scope"] or TokenScope.PROMPT
