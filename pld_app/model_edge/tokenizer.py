"""How many tokens a text has for the model behind an endpoint, where its server says so.

llama.cpp's server answers `POST /tokenize` beside `/v1` with `{"tokens": [...]}`. Providers without it answer 404.
"""

import json
from urllib.parse import urlsplit

from pld_app.model_edge.addresses import AddressRefusedError
from pld_app.model_edge.strict_json import StrictJsonError, loads_strict
from pld_app.model_edge.transport import UnreachableError, guarded_post
from pld_app.model_edge.types import EndpointConfig


def tokenizer_count(endpoint: EndpointConfig, text: str) -> int | None:
    """Tokens of `text` by the endpoint's own tokenizer; None when it has none, is away or answers something else."""
    parts = urlsplit(endpoint.base_url)
    url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}/tokenize"
    content = json.dumps({"content": text, "add_special": False}).encode()
    try:
        status, body = guarded_post(endpoint, url, content, "application/json")
        said = loads_strict(body.decode("utf-8", "replace")) if status == 200 and body else None
    except (AddressRefusedError, UnreachableError, StrictJsonError):
        return None
    tokens = said.get("tokens") if isinstance(said, dict) else None
    return len(tokens) if isinstance(tokens, list) else None
