"""Forms of the emergency stop and of scheduled publication."""

from datetime import UTC
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import ProofForm
from rules.models import ChannelName


class StopForm(forms.Form):
    """What is to be stopped: the view offers what channels serve now. No proof: a stop only takes away."""

    target = forms.ChoiceField(label=_("What"))
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))


class StopSignForm(ProofForm):
    """The second person's; the reason is asked for lifting only. `stop` is the one that was shown."""

    stop = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    reason = forms.CharField(
        label=_("Why, when you lift it"), max_length=300, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )


class UtcField(forms.DateTimeField):
    """A time typed as UTC, whatever the browser's zone; `2026-11-30T09:00` as a date field sends it."""

    def __init__(self, **options: Any) -> None:  # Django's own field options
        widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "60"}, format="%Y-%m-%dT%H:%M")
        super().__init__(widget=widget, **options)

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


class ScheduleForm(ProofForm):
    """A publication for later; the hidden fields say what each channel's history ended with when it was shown."""

    channel = forms.ChoiceField(label=_("Channel"), choices=ChannelName.choices)
    release = forms.TypedChoiceField(label=_("Release"), coerce=int)
    effective_from = UtcField(label=_("From (UTC)"), help_text=_("The database's clock decides."))
    until = UtcField(
        label=_("Until (UTC)"),
        required=False,
        help_text=_("Then the channel falls back to what was valid before. Empty: until the next publication."),
    )
    allow_moved = forms.BooleanField(
        label=_("Publish also if the channel was moved meanwhile"),
        required=False,
    )
    reason = forms.CharField(label=_("Note"), max_length=300, required=False)
    newest_staging = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    newest_production = forms.IntegerField(min_value=0, widget=forms.HiddenInput)

    def values(self) -> dict[str, Any]:
        """As the service takes them; only after `is_valid`."""
        said = self.said
        newest = {name: said.pop(f"newest_{name}") for name in ChannelName.values}
        release = said.pop("release")
        return said | {"release_id": release, "expected_newest": newest[said["channel"]]}


class CancelForm(forms.Form):
    reason = forms.CharField(label=_("Why"), max_length=300)
