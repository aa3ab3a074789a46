"""What a bulk action asks before it acts; each form only parses, whether it is enough is for the service to say."""

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from pld_app.errors import InvalidInput
from rules.models import ReasonCode
from rules.services.tags import TAG_MAX_CHARS

type Data = Mapping[str, Any]
_NOTE = {"rows": 2}
_SHOWN = re.compile(r"[0-9]{1,9}:[0-9]{1,9}(?:,[0-9]{1,9}:[0-9]{1,9})*")


class BulkAct(models.TextChoices):
    APPROVE = "approve", _("Approve")
    REJECT = "reject", _("Reject")
    DEFER = "defer", _("Defer")
    ASSIGN = "assign", _("Assign")
    TAG = "tag", _("Tag")


class RejectForm(forms.Form):
    reason = forms.ChoiceField(label=_("Reason"), choices=[("", _("Choose a reason")), *ReasonCode.choices])
    note = forms.CharField(
        label=_("Note"),
        required=False,
        help_text=_("Kept with each of the decisions; needed for “other”."),
        widget=forms.Textarea(attrs=_NOTE),
    )


class DeferForm(forms.Form):
    until = forms.DateField(
        label=_("Until"), required=False, widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")
    )
    note = forms.CharField(label=_("Why"), required=False, widget=forms.Textarea(attrs=_NOTE))

    def clean_until(self) -> Any:
        until = self.cleaned_data["until"]
        if until is not None and until <= timezone.now().date():
            raise forms.ValidationError(_("Choose a day to come."))
        return until

    @property
    def said(self) -> str:
        """The note with the day it waits for, as the timeline shows it."""
        until, note = self.cleaned_data["until"], self.cleaned_data["note"]
        return " ".join(part for part in (_t("Until %(day)s.") % {"day": until} if until else "", note) if part)


class TagForm(forms.Form):
    name = forms.CharField(
        label=_("Tag"), max_length=TAG_MAX_CHARS, widget=forms.TextInput(attrs={"list": "known-tags"})
    )
    what = forms.ChoiceField(label=_("What to do"), choices=[("on", _("Put it on")), ("off", _("Take it off"))])


class ApproveForm(forms.Form):
    """`opened` is the number of the card that was open; `convinced` is asked of a share of approvals."""

    opened = forms.IntegerField(min_value=1, max_value=999_999_999, widget=forms.HiddenInput)
    convinced = forms.ChoiceField(label=_("Which evidence convinced you?"), widget=forms.RadioSelect)

    def __init__(self, data: Data | None, *, opened: int | None, evidence: list[tuple[str, str]]) -> None:
        super().__init__(data, initial={"opened": opened})
        if not evidence:
            del self.fields["convinced"]
            return
        field = self.fields["convinced"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = evidence

    @property
    def place(self) -> int | None:
        found = self.cleaned_data.get("convinced")
        return int(found) if found else None


def shown_written(shown: Mapping[int, int]) -> str:
    """Numbers with the versions a page shows, as one hidden field: a server takes no form of a thousand fields."""
    return ",".join(f"{number}:{version}" for number, version in shown.items())


def shown_read(text: str) -> dict[int, int]:
    """What `shown_written` wrote. Refuses anything else."""
    if not _SHOWN.fullmatch(text):
        raise InvalidInput(_("This form does not say which instructions it is about. Go back and tick them again."))
    pairs = (one.split(":") for one in text.split(","))
    return {int(number): int(version) for number, version in pairs}
