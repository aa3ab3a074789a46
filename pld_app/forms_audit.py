"""The filter of the audit log as a form."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.audit_search import AuditSearch, values_of
from pld_app.models import User
from pld_app.models.audit import kind_word


class AuditFilter(forms.Form):
    """Filters of the log, all optional; an unknown value is an error, not an empty page."""

    text = forms.CharField(
        required=False,
        label=_("Words"),
        max_length=200,
        help_text=_("In objects, reasons, notes. “Several words” in quotes stand together; -word leaves out."),
    )
    actor = forms.ModelChoiceField(User.objects.all(), required=False, label=_("Who"), empty_label=_("All"))
    action = forms.ChoiceField(required=False, label=_("Action"))
    object_type = forms.ChoiceField(required=False, label=_("Kind of object"))
    object = forms.CharField(required=False, label=_("Object"), max_length=200)
    object_id = forms.CharField(required=False, label=_("Its id"), max_length=40)
    task = forms.ChoiceField(required=False, label=_("Task"))
    since = forms.DateField(required=False, label=_("From"), widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, label=_("To"), widget=forms.DateInput(attrs={"type": "date"}))
    request = forms.CharField(required=False, label=_("Request id"), max_length=36)
    readings = forms.BooleanField(required=False, label=_("Readings of this log too"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, column, word in (
            ("action", "action", str),
            ("object_type", "object_type", kind_word),
            ("task", "task_slug", str),
        ):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = [("", _("All")), *((value, word(value)) for value in values_of(column))]

    def search(self) -> AuditSearch:
        """What is asked; only after `is_valid`."""
        chosen = dict(self.cleaned_data)
        actor: User | None = chosen.pop("actor")
        return AuditSearch(actor=actor.pk if actor else None, **chosen)
