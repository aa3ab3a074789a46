"""What calls would come to, before any is made."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import batched

from pld_app.model_edge.budget import price
from pld_app.model_edge.ledger import LOOKUP_BATCH, endpoint_config, recalled
from pld_app.model_edge.types import CallRequest, estimated_output_tokens, estimated_prompt_tokens, request_hash
from pld_app.models import ModelEndpoint


@dataclass(frozen=True, kw_only=True)
class CallsEstimate:
    """Before a run: how many requests the ledger answers, and the most the others can come to without retries."""

    requests: int
    recorded: int
    prompt_tokens: int
    output_tokens: int
    cost: Decimal

    @property
    def calls(self) -> int:
        return self.requests - self.recorded


def calls_estimate(endpoint: ModelEndpoint, requests: Iterable[CallRequest], *, scope: str) -> CallsEstimate:
    """Count the calls, tokens (three bytes each, replies at full length) and money a run would take; sends nothing."""
    config = endpoint_config(endpoint, with_key=False)
    total = recorded = prompt = output = 0
    seen: set[str] = set()
    for batch in batched(requests, LOOKUP_BATCH):
        by_hash = {request_hash(config, request): request for request in batch}
        known = recalled(scope, list(by_hash)).keys() | seen
        new = {digest: request for digest, request in by_hash.items() if digest not in known}
        seen |= new.keys()
        total += len(batch)
        recorded += len(batch) - len(new)
        prompt += sum(map(estimated_prompt_tokens, new.values()))
        output += sum(estimated_output_tokens(config, request) for request in new.values())
    cost = price(endpoint, prompt_tokens=prompt, completion_tokens=output)
    return CallsEstimate(requests=total, recorded=recorded, prompt_tokens=prompt, output_tokens=output, cost=cost)
