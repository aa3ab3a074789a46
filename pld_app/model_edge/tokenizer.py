"""How many tokens a text has for the model behind an endpoint, where its server says so.

llama.cpp's server answers `POST /tokenize` beside `/v1` with `{"tokens": [...]}`. Providers without it answer 404.
"""

import asyncio
import json
from urllib.parse import urlsplit

import httpx2

from pld_app.model_edge.addresses import AddressRefusedError, check_url
from pld_app.model_edge.strict_json import StrictJsonError, loads_strict
from pld_app.model_edge.transport import BodyEncodedError, BodyTooLargeError, GuardedTransport
from pld_app.model_edge.types import EndpointConfig

_DEADLINE_S = 20.0


def tokenizer_count(endpoint: EndpointConfig, text: str) -> int | None:
    """Tokens of `text` by the endpoint's own tokenizer; None when it has none, is away or answers something else."""
    try:
        check_url(endpoint.base_url)
        return _tokens_in(asyncio.run(_asked(endpoint, text)))
    except (AddressRefusedError, httpx2.HTTPError, TimeoutError, BodyTooLargeError, BodyEncodedError, StrictJsonError):
        return None


async def _asked(endpoint: EndpointConfig, text: str) -> bytes:
    """The body of a good answer, at most 4 MiB; empty for any other status."""
    parts = urlsplit(endpoint.base_url)
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}/tokenize"
    transport = GuardedTransport(endpoint)
    async with (
        httpx2.AsyncClient(transport=transport, follow_redirects=False, timeout=10, trust_env=False) as client,
        asyncio.timeout(_DEADLINE_S),
    ):
        content = json.dumps({"content": text, "add_special": False}).encode()
        answer = await client.post(url, content=content, headers={"Content-Type": "application/json"})
        return answer.content if answer.status_code == httpx2.codes.OK else b""


def _tokens_in(body: bytes) -> int | None:
    said = loads_strict(body.decode("utf-8", "replace")) if body else None
    tokens = said.get("tokens") if isinstance(said, dict) else None
    return len(tokens) if isinstance(tokens, list) else None
