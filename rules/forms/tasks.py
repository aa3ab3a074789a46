"""Forms of tasks and imports."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.models import EndpointKind, ModelEndpoint, Role
from rules.hidden_text import hidden_in
from rules.models import Task
from rules.models.task import default_signer_roles


class TraceUploadForm(forms.Form):
    file = forms.FileField(
        label=_("Trace file"),
        help_text=_("JSON Lines or CSV in UTF-8, plain or gzipped, one trace a row (format trace.v1)."),
    )


class LinesField(forms.CharField):
    """A list edited as one entry a line."""

    widget = forms.Textarea(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:  # a list from the row, or the text that was typed
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        # A disabled field is given the row's own list.
        entries = _entries(super().clean(self.prepare_value(value)))
        if len(set(entries)) != len(entries):
            raise forms.ValidationError(_("An entry stands twice."))
        return entries

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Whether the entries differ; the audit log names the field as changed only then."""
        return not self.disabled and _entries(self.prepare_value(initial)) != _entries(data)


def _entries(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


class TaskForm(forms.ModelForm[Task]):
    labels = LinesField(label=_("Labels"), help_text=_("One a line; fixed once traces are imported."))
    input_fields = LinesField(label=_("Input fields"), help_text=_("One a line; the names every trace uses."))
    signers_required = forms.IntegerField(
        label=_("Signers required"),
        min_value=2,
        max_value=9,
        initial=2,
        error_messages={"min_value": _("A release needs at least two signers.")},
    )
    signer_roles = forms.MultipleChoiceField(
        label=_("Roles that may sign"),
        choices=[(Role.SIGNATORY, Role.SIGNATORY.label), (Role.REVIEWER, Role.REVIEWER.label)],
        widget=forms.CheckboxSelectMultiple,
        initial=default_signer_roles,
    )

    class Meta:
        model = Task
        fields = (
            "name",
            "slug",
            "description",
            "labels",
            "input_fields",
            "domain_field",
            "preamble",
            "output_contract",
            "teacher",
            "second_teacher",
            "embedder",
            "student",
            "signers_required",
            "signer_roles",
            "publisher_may_have_signed",
        )
        widgets = {"description": forms.Textarea(attrs={"rows": 3})}
        help_texts = {"slug": _("Its name in addresses, commands and the API; letters, digits and hyphens.")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chat = ModelEndpoint.objects.filter(kind=EndpointKind.CHAT, is_active=True)
        self._choices("teacher", chat)
        self._choices("second_teacher", chat)
        self._choices("student", chat)
        self._choices("embedder", ModelEndpoint.objects.filter(kind=EndpointKind.EMBEDDING, is_active=True))
        if self.instance.pk:
            # A policy that exists changes by a proposal that a second person confirms.
            for name in ("signers_required", "signer_roles", "publisher_may_have_signed"):
                del self.fields[name]
        if self.instance.pk and self.instance.traces.exists():
            # Labels and fields are what the imported traces speak; changing them would orphan those.
            for name in ("slug", "labels", "input_fields"):
                self.fields[name].disabled = True

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        if slug == "new":
            raise forms.ValidationError(_("This name is the address of the form itself. Choose another."))
        return slug

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        for name in ("name", "labels", "input_fields", "preamble", "output_contract"):
            value = self.cleaned_data.get(name, "")
            hidden = hidden_in("\n".join(value) if isinstance(value, list) else value.replace("\r\n", "\n"))
            if hidden:
                message = _("There are invisible characters in it (%(codes)s). Take them out.")
                self.add_error(name, message % {"codes": ", ".join(hidden[:5])})
        return cleaned

    def _choices(self, name: str, queryset: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = queryset
