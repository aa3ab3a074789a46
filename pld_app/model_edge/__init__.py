"""The one adapter of model calls: nothing else in the product talks to a model provider."""

from pld_app.model_edge.addresses import AddressRefusedError, check_url
from pld_app.model_edge.dispatch import CallStream, call_once, calls_stream
from pld_app.model_edge.errors import BudgetExhausted, EndpointMisconfigured, ModelUnavailable
from pld_app.model_edge.strict_json import StrictJsonError, loads_strict
from pld_app.model_edge.types import (
    CallReply,
    CallRequest,
    ChatBody,
    EmbeddingBody,
    EndpointConfig,
    Message,
    Outcome,
    Secret,
    request_hash,
)

__all__ = [
    "AddressRefusedError",
    "BudgetExhausted",
    "CallReply",
    "CallRequest",
    "CallStream",
    "ChatBody",
    "EmbeddingBody",
    "EndpointConfig",
    "EndpointMisconfigured",
    "Message",
    "ModelUnavailable",
    "Outcome",
    "Secret",
    "StrictJsonError",
    "call_once",
    "calls_stream",
    "check_url",
    "loads_strict",
    "request_hash",
]
