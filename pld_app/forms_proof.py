"""The fields in which a person proves again who they are; part of every form that signs or publishes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django import forms
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from pld_app.errors import InvalidInput
from pld_app.passkeys import site_of
from pld_app.reauthentication import CONSENT, Proof, ProofRefused

PROOF_FIELDS = ("consent", "password", "code", "passkey", "ceremony", "sso")


class PasswordField(forms.CharField):
    """The password of the person who is signed in, taken as it is typed."""

    # Whether it is needed depends on the person and the moment: the page says so, not a mark beside the label.
    unmarked = True

    def __init__(self, *, required: bool = True) -> None:
        widget = forms.PasswordInput(attrs={"autocomplete": "current-password"})
        label = _("Your password, again")
        super().__init__(label=label, strip=False, max_length=4096, required=required, widget=widget)


class CodeField(forms.CharField):
    """A code of an authenticator app: pasted or typed, with or without a space in the middle."""

    unmarked = True

    def __init__(self, *, label: Any = "", required: bool = False) -> None:
        attrs = {"autocomplete": "one-time-code", "inputmode": "numeric", "spellcheck": "false", "size": "12"}
        label = label or _("Code of your authenticator app")
        super().__init__(label=label, max_length=20, required=required, widget=forms.TextInput(attrs=attrs))


class ProofForm(forms.Form):
    """Which of the fields are needed depends on the person; `templates/rules/ceremony.html` shows those.

    What is missing or wrong is the service's to say.
    """

    consent = forms.BooleanField(label=CONSENT, required=False)
    password = PasswordField(required=False)
    code = CodeField()
    passkey = forms.CharField(required=False, max_length=20_000, widget=forms.HiddenInput)
    ceremony = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)
    sso = forms.CharField(required=False, max_length=36, widget=forms.HiddenInput)

    def proof(self, request: HttpRequest) -> Proof:
        """What was offered, in the session of this request; only after `is_valid`."""
        values: dict[str, Any] = {name: self.cleaned_data[name] for name in PROOF_FIELDS}
        return Proof(session_key=request.session.session_key or "", site=site_of(request), **values)

    @contextmanager
    def refusals(self, others: str | None = None) -> Iterator[None]:
        """Take a refusal of the block to the field it is about: of the proof to the password.

        `others` names the field that any other invalid input belongs to ("__all__": none); without it they pass.
        """
        try:
            yield
        except ProofRefused as refusal:
            self.add_error("password", str(refusal))
        except InvalidInput as refusal:
            if others is None:
                raise
            self.add_error(others, str(refusal))

    @property
    def said(self) -> dict[str, Any]:  # each field's own type
        """What was typed besides the proof; only after `is_valid`."""
        return {name: value for name, value in self.cleaned_data.items() if name not in PROOF_FIELDS}

    def act_fields(self) -> list[forms.BoundField]:
        """The fields of the act itself, for a template to show before the ceremony."""
        return [field for field in self if field.name not in PROOF_FIELDS]
