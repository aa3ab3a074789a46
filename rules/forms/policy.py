"""Forms of the sign-off policy."""

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from pld_app.forms_proof import ProofForm
from pld_app.models import Domain, Role
from rules.models import SignOffPolicy


class PolicyForm(ProofForm):
    """The next policy, starting from the one in force; whether it makes sense the database says."""

    expected = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
    signers_required = forms.IntegerField(
        label=_("Signers required"),
        min_value=2,
        max_value=9,
        error_messages={"min_value": _("A release needs at least two signers.")},
    )
    signer_roles = forms.MultipleChoiceField(
        label=_("Roles that may sign"),
        choices=[(Role.SIGNATORY, Role.SIGNATORY.label), (Role.REVIEWER, Role.REVIEWER.label)],
        widget=forms.CheckboxSelectMultiple,
    )
    signatories_required = forms.IntegerField(
        label=_("Of whom signatories, at least"),
        min_value=0,
        max_value=9,
        help_text=_("Counts when reviewers may sign too."),
    )
    domains = forms.MultipleChoiceField(
        label=_("A signer from each of these domains"),
        choices=Domain.choices,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Only reviewers have a domain."),
    )
    miners_may_sign = forms.BooleanField(label=_("Whoever started the mining may sign"), required=False)
    publisher_may_have_signed = forms.BooleanField(
        label=_("A signer may also publish"),
        required=False,
        help_text=_("Without it, publishing takes a signatory who did not sign."),
    )
    read_changed_first = forms.BooleanField(
        label=_("Edited and conflicting instructions are opened before signing"), required=False
    )
    reason = forms.CharField(label=_("Why"), max_length=300, widget=forms.Textarea(attrs={"rows": 2}))

    @classmethod
    def of(cls, policy: SignOffPolicy) -> "PolicyForm":
        initial: dict[str, Any] = {name: getattr(policy, name) for name in cls.base_fields if hasattr(policy, name)}
        return cls(initial=initial | {"expected": policy.version, "reason": ""}, auto_id="policy-%s")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        roles = cleaned.get("signer_roles", [])
        if cleaned.get("signatories_required", 0) > cleaned.get("signers_required", 9):
            self.add_error("signatories_required", _("There cannot be more signatories than signers."))
        if cleaned.get("signatories_required") and Role.SIGNATORY not in roles:
            self.add_error("signer_roles", _("Signatories are asked for, so they must be among those that sign."))
        if cleaned.get("domains") and Role.REVIEWER not in roles:
            self.add_error("signer_roles", _("Only reviewers have a domain, so they must be among those that sign."))
        return cleaned


class PolicyDecisionForm(ProofForm):
    """The proof, and the version that was shown; which button was pressed is in the address."""

    version = forms.IntegerField(min_value=1, widget=forms.HiddenInput)
