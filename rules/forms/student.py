"""Forms of the student's side: webhook targets and the question what was served when."""

from django import forms
from django.utils.translation import gettext_lazy as _

from rules.forms.control import UtcField
from rules.models import ChannelName, WebhookTarget


class WebhookForm(forms.ModelForm[WebhookTarget]):
    class Meta:
        model = WebhookTarget
        fields = ("name", "url", "secret_env")
        help_texts = {
            "url": _(
                "https://, without user, query or fragment; private hosts only where the installation allows them."
            )
        }


class ServedForm(forms.Form):
    channel = forms.ChoiceField(label=_("Channel"), choices=ChannelName.choices, initial=ChannelName.PRODUCTION)
    at = UtcField(label=_("At (UTC)"))
