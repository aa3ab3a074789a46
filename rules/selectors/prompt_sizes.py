"""How many tokens a prompt has, and who counted."""

from dataclasses import dataclass

from pld_app.canonical import sha256_hex
from pld_app.models import ModelEndpoint
from rules.manifest import token_estimate
from rules.models import PromptSize


@dataclass(frozen=True, slots=True)
class TokenCount:
    """`model` names whose tokenizer counted; empty, the number is approximate: characters over four."""

    tokens: int
    model: str = ""


def prompt_tokens(student: ModelEndpoint | None, prompt: str) -> TokenCount:
    """By the tokenizer of the student, where its server has told (services.prompt_sizes), else the approximation."""
    if student is not None:
        known = PromptSize.objects.filter(prompt_sha256=sha256_hex(prompt), endpoint=student, model=student.model)
        tokens = known.values_list("tokens", flat=True).first()
        if tokens is not None:
            return TokenCount(tokens, student.model)
    return TokenCount(token_estimate(prompt))
