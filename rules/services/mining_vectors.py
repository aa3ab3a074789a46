"""Stage 2: vectors for the micro-rules, from the embedding endpoint or computed here."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pld_app.errors import InvalidInput
from pld_app.model_edge import CallRequest, Outcome
from rules.mining.arrays import FloatArray
from rules.mining.vectors import centre, embed_tfidf
from rules.models import MicroRule, MicroRuleOrigin, MiningRun
from rules.prompts import embedding_requests
from rules.services.mining_run import Part, RunContext


@dataclass(frozen=True)
class Mined:
    """The usable micro-rules of a run in trace order, with their centred unit vectors of shape (n, d)."""

    rules: list[MicroRule]
    vectors: FloatArray

    @property
    def texts(self) -> list[str]:
        return [rule.text for rule in self.rules]

    @property
    def labels(self) -> list[str]:
        return [rule.trace.label for rule in self.rules]


def mined_of(context: RunContext) -> Mined:
    """The micro-rules and vectors; computed once a worker, from rows and recorded calls alone."""
    if context.mined is None:
        usable = context.run.micro_rules.exclude(origin=MicroRuleOrigin.FAILED)
        rules = list(usable.select_related("trace").order_by("trace_id"))
        context.mined = Mined(rules, centre(_vectors(context, [rule.text for rule in rules])))
    return context.mined


def _vectors(context: RunContext, texts: list[str]) -> FloatArray:
    if context.run.embedder is None:
        return embed_tfidf(texts, labels=context.run.task.labels, seed=context.parameters.seed)
    blocks = embedding_blocks(context, texts)
    return np.concatenate(blocks) if blocks else np.zeros((0, 1), dtype=np.float32)


def texts_to_embed(run: MiningRun) -> list[str]:
    """The micro-rules in trace order."""
    return list(run.micro_rules.exclude(text="").order_by("trace_id").values_list("text", flat=True))


def embeddings_ask(context: RunContext, part: Part) -> None:
    """Have the embedding endpoint answer this worker's share of the micro-rules, for the ledger."""
    requests = [one for one in embedding_requests(texts_to_embed(context.run)) if part.holds(int(one.key))]
    for done, _block in enumerate(_blocks(context, requests), 1):
        context.part_progress(done, len(requests))


def embedding_blocks(context: RunContext, texts: list[str]) -> list[FloatArray]:
    """The vectors of `texts` in their order, EMBED_BATCH texts a block; what the ledger holds is not asked again."""
    requests = list(embedding_requests(texts))
    blocks = dict(_blocks(context, requests))
    return [blocks[request.key] for request in requests]


def _blocks(context: RunContext, requests: list[CallRequest]) -> Iterator[tuple[str, FloatArray]]:
    embedder = context.run.embedder
    assert embedder is not None
    answered = 0
    for recorded in context.calls(embedder, requests):
        if recorded.outcome is Outcome.CANCELLED:
            continue
        if recorded.vectors is None:
            raise InvalidInput(f"The embedding endpoint did not answer: {recorded.error}")
        answered += 1
        yield recorded.request.key, recorded.vectors
    if answered < len(requests):
        context.check_going_on()
