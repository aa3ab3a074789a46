"""Whose work an instruction is, and who is away; both only parse."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _t
from django.utils.translation import gettext_lazy as _

from pld_app.models import Domain, Role, User
from rules.models import Assignment

type Data = Mapping[str, Any]


class PersonField(forms.ModelChoiceField[User]):
    def label_from_instance(self, obj: User) -> str:
        return f"{obj}, {obj.get_domain_display()}"


def reviewers() -> Any:
    """Reviewers whose account is open."""
    return User.objects.filter(role=Role.REVIEWER, is_active=True)


def _day() -> forms.DateInput:
    return forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")


class AssignmentForm(forms.Form):
    """`to` is "person 5", "pool legal" or nothing; `person` and `pool` are what it names."""

    to = forms.ChoiceField(label=_("Whose work it is"), required=False)
    due_on = forms.DateField(label=_("Due on"), required=False, widget=_day())

    def __init__(self, data: Data | None, *, current: Assignment | None) -> None:
        super().__init__(data, initial=_initial(current))
        self.people = {f"person {one.pk}": one for one in reviewers().select_related("absence")}
        pools = [(f"pool {value}", _t("Pool: %(name)s") % {"name": label}) for value, label in Domain.choices]
        people = [(key, _named(one)) for key, one in self.people.items()]
        field = self.fields["to"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", _("Nobody in particular")), (_t("Pools"), pools), (_t("Reviewers"), people)]

    @property
    def person(self) -> User | None:
        return self.people.get(self.cleaned_data["to"])

    @property
    def pool(self) -> str:
        start, _space, name = self.cleaned_data["to"].partition(" ")
        return name if start == "pool" else ""


def _initial(current: Assignment | None) -> dict[str, object]:
    if current is None:
        return {}
    to = f"person {current.person_id}" if current.person_id else f"pool {current.pool}"
    return {"to": to, "due_on": current.due_on}


def _named(person: User) -> str:
    absence = getattr(person, "absence", None)
    name = f"{person}, {person.get_domain_display()}"
    today = timezone.now().date()
    if absence is None or not absence.starts_on <= today <= absence.ends_on:
        return name
    return _t("%(name)s (away until %(date)s)") % {"name": name, "date": absence.ends_on}


class AbsenceForm(forms.Form):
    """Of oneself; an administrator names the person."""

    person = PersonField(label=_("Who"), queryset=User.objects.none())
    starts_on = forms.DateField(label=_("First day away"), widget=_day())
    ends_on = forms.DateField(label=_("Last day away"), widget=_day())
    deputy = PersonField(
        label=_("Deputy"),
        queryset=User.objects.none(),
        required=False,
        help_text=_("Without one, anybody may take this person's work on those days."),
    )

    def __init__(self, data: Data | None, *, by: User) -> None:
        super().__init__(data)
        self._by = by
        for name in ("person", "deputy"):
            field = self.fields[name]
            assert isinstance(field, forms.ModelChoiceField)
            field.queryset = reviewers()
        if by.role != Role.ADMIN:
            del self.fields["person"]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        return {"person": self._by} | cleaned
