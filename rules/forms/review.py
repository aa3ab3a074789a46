"""The queue's filter and the one form behind every decision; both only parse."""

from collections.abc import Mapping

from django import forms
from django.forms.renderers import BaseRenderer
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from pld_app.models import Domain, User
from rules.models import Task
from rules.selectors.review_filter import ALL_DOMAINS, ReviewFilter
from rules.selectors.review_tabs import Mark, Tab

type Choices = list[tuple[str, str | Promise]]


class LongSelect(forms.Select):
    """A menu of hundreds of choices: Django's own renders a template for each, which was most of the queue's time."""

    def render(
        self, name: str, value: object, attrs: Mapping[str, object] | None = None, renderer: BaseRenderer | None = None
    ) -> SafeString:
        options = [_option(str(key), label, is_chosen=str(key) == str(value or "")) for key, label in self.choices]
        attributes = format_html_join("", ' {}="{}"', (attrs or {}).items())
        inner = format_html_join("", "{}", ((option,) for option in options))
        return format_html('<select name="{}"{}>{}</select>', name, attributes, inner)


def _option(key: str, label: object, *, is_chosen: bool) -> SafeString:
    if is_chosen:
        return format_html('<option value="{}" selected>{}</option>', key, label)
    return format_html('<option value="{}">{}</option>', key, label)


class QueueFilterForm(forms.Form):
    """Choices of the queue's filter, from the query string; what does not fit falls back to its preset."""

    tab = forms.ChoiceField(choices=Tab, required=False, widget=forms.HiddenInput)
    domain = forms.ChoiceField(label=_("Domain"), required=False)
    label = forms.ChoiceField(label=_("Label"), required=False)
    topic = forms.CharField(label=_("Topic"), required=False, max_length=200, widget=LongSelect)
    mark = forms.ChoiceField(label=_("Only"), required=False)
    tag = forms.CharField(label=_("Tag"), required=False, max_length=30, widget=LongSelect)
    text = forms.CharField(
        label=_("Search"), required=False, max_length=200, widget=forms.TextInput(attrs={"type": "search"})
    )

    def __init__(
        self,
        data: Mapping[str, str],
        *,
        task: Task,
        user: User,
        topics: list[str] | None = None,
        tags: list[str] | None = None,
    ) -> None:
        self.presets = {"tab": Tab.OPEN.value, "domain": user.domain or ALL_DOMAINS}
        super().__init__({**self.presets, **{key: value for key, value in data.items() if value}})
        domains: Choices = [(ALL_DOMAINS, _("All domains")), *Domain.choices]
        labels: Choices = [("", _("All labels")), *((label, label) for label in task.labels)]
        self._choose("domain", domains)
        self._choose("label", labels)
        self._choose("mark", [("", _("All")), *Mark.choices])
        self.fields["topic"].widget.choices = [("", _("All topics")), *((topic, topic) for topic in topics or [])]
        self.fields["tag"].widget.choices = [("", _("All tags")), *((tag, tag) for tag in tags or [])]

    def _choose(self, name: str, choices: Choices) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)
        field.choices = choices

    def to_filter(self) -> ReviewFilter:
        self.is_valid()
        fit = {**self.presets, **{key: value for key, value in self.cleaned_data.items() if value}}
        return ReviewFilter(
            tab=Tab(fit["tab"]),
            domain=fit["domain"],
            label=fit.get("label", ""),
            topic=fit.get("topic", ""),
            text=fit.get("text", ""),
            mark=fit.get("mark", ""),
            tag=fit.get("tag", ""),
        )


class DecisionForm(forms.Form):
    """What a decision sends; whether it is enough is for the service to say."""

    version = forms.IntegerField(min_value=0, widget=forms.HiddenInput)
    # The revision that was on the page, and the warnings that were read there: rules.diff.risks_digest.
    base = forms.IntegerField(min_value=1, required=False, widget=forms.HiddenInput)
    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    reason = forms.CharField(required=False)
    note = forms.CharField(required=False, widget=forms.Textarea)
    text = forms.CharField(required=False, strip=False, widget=forms.Textarea)


class DraftForm(forms.Form):
    """What is being typed, and on which revision it was begun."""

    base = forms.IntegerField(min_value=1, max_value=1_000_000)
    text = forms.CharField(required=False, strip=False)
    note = forms.CharField(required=False, strip=False)
