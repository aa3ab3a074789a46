"""The facts of a signature, the same for page, print and every export: nothing else formats one."""

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from pld_app.assertions import EvidenceInvalid, assertion_verify
from pld_app.canonical import sha256_hex
from pld_app.models import Reauthentication
from rules.models import Ruleset, Signature
from rules.selectors.rulesets import utc_text


@dataclass(frozen=True, kw_only=True)
class SignatureFacts:
    """Who signed what, as what, when, how; `fault` says in words why it does not hold (empty: it holds)."""

    name: str
    username: str
    role: str
    role_label: str
    meaning: str
    meaning_label: str
    conditions: str
    """On what the approval rests or why it is rejected; empty for any other meaning."""
    method: str
    method_label: str
    signed_at: str
    """UTC with microseconds, as in the exports; `signed_at_short` to the second, for reading."""
    authenticated_at: str
    manifest_sha256: str
    ruleset_id: int
    evidence: dict[str, Any] | None
    fault: str

    @property
    def signed_at_short(self) -> str:
        return f"{self.signed_at[:10]} {self.signed_at[11:19]} UTC"

    @property
    def line(self) -> str:
        """The facts in one line, for cells and print."""
        said = f"{self.meaning}: {self.conditions}" if self.conditions else self.meaning
        return f"{self.name} ({self.role}, {said}, {self.method}, {self.signed_at})"

    def as_json(self) -> dict[str, Any]:
        """JSON for exports: the fields by name, without labels, which are of a language."""
        return {
            "name": self.name,
            "username": self.username,
            "role": self.role,
            "meaning": self.meaning,
            "conditions": self.conditions,
            "method": self.method,
            "signed_at": self.signed_at,
            "authenticated_at": self.authenticated_at,
            "manifest_sha256": self.manifest_sha256,
            "evidence": self.evidence,
        }


def signature_facts(signature: Signature, ruleset: Ruleset) -> SignatureFacts:
    """The facts of one signature of this ruleset; `signer` and `reauthentication` should be loaded with it."""
    proved = signature.reauthentication
    return SignatureFacts(
        name=signature.signer_name,
        username=signature.signer.username,
        role=signature.signer_role,
        role_label=str(signature.get_signer_role_display()),
        meaning=signature.meaning,
        meaning_label=str(signature.get_meaning_display()),
        conditions=signature.conditions,
        method=signature.method,
        method_label=str(signature.get_method_display()),
        signed_at=utc_text(signature.at),
        authenticated_at=utc_text(signature.authenticated_at),
        manifest_sha256=signature.manifest_sha256,
        ruleset_id=signature.ruleset_id,
        evidence=proved.evidence if proved else None,
        fault=signature_fault(signature, ruleset),
    )


def signatures_of(ruleset: Ruleset) -> list[SignatureFacts]:
    """All signatures of a ruleset, oldest first, in one query."""
    rows = ruleset.signatures.select_related("signer", "reauthentication").order_by("pk")
    return [signature_facts(row, ruleset) for row in rows]


def signature_fault(signature: Signature, ruleset: Ruleset) -> str:
    """Why this signature does not hold for this ruleset as it stands now, or empty.

    Computed from the bytes and the evidence, not from a status: whatever changed underneath, this notices it.
    """
    if signature.ruleset_id != ruleset.pk:
        return _("It is over another ruleset.")
    if ruleset.manifest is None or sha256_hex(bytes(ruleset.manifest)) != signature.manifest_sha256:
        return _("The manifest is not the one that was signed.")
    proved = signature.reauthentication
    # One signed before proofs were kept is bound by the hash alone.
    return _proof_fault(signature, proved) if proved else ""


def _proof_fault(signature: Signature, proved: Reauthentication) -> str:
    expected = (
        "sign",
        "ruleset",
        str(signature.ruleset_id),
        signature.manifest_sha256,
        signature.meaning,
        signature.signer_id,
    )
    act = (proved.purpose, proved.subject_type, proved.subject_id, proved.content_sha256, proved.meaning)
    if (*act, proved.user_id) != expected:
        return _("The proof of identity was for something else.")
    if proved.evidence is None:
        return ""
    try:
        said = assertion_verify(proved.evidence)
    except EvidenceInvalid:
        return _("The passkey's proof does not verify.")
    subject, signer = said.get("subject", {}), said.get("signer", {})
    confirmed = (
        said.get("purpose"),
        subject.get("type"),
        subject.get("id"),
        said.get("content_sha256"),
        said.get("meaning"),
        signer.get("id"),
    )
    return "" if confirmed == expected else _("The passkey confirmed something else.")
