"""Whatever a request carries, the answer is a page in words: no address, query or form leads to a server error."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction

from tests.test_permissions import PATHS, TABLE, Scene

NUL = "a\x00b"
ODD = [
    NUL,
    "\ud800",  # a lone surrogate, sent as its three bytes
    "9" * 10_000,
    "9" * 25,
    "9223372036854775807",
    "-1",
    "\N{ARABIC-INDIC DIGIT THREE}",
    "\N{SUPERSCRIPT TWO}",  # isdigit, but no number
    "1e400",
    "_%\\'\r\nX-Injected: 1",
]
PARAMETERS = (  # noqa: SIM905
    "page history q split label tab domain topic text actor action object_type object since until next run "
    "against gold predicted prompt student sample_size seed channel kind purpose outcome endpoint scope"
).split()
FIELDS = (  # noqa: SIM905
    "username password next display_name email role domain name slug kind base_url model api_key_env "
    "structured_output concurrency requests_per_minute tokens_per_minute timeout_s max_output_tokens price_in "
    "price_out is_active description labels input_fields domain_field preamble output_contract teacher "
    "embedder student signers_required signer_roles file method resolution neighbours eps min_samples "
    "max_conditions version reason note text start instruction to meaning manifest_sha256 newest channel "
    "release prompt split sample_size seed estimate budget"
).split()
# Views that take a text from the query to the database.
SEARCHING = ["audit", "audit-export", "traces", "review-queue", "instruction-detail", "ruleset-detail", "ledger"]
pytestmark = pytest.mark.slow


def encoded(value: str) -> str:
    """Percent-encoded as a hostile client would: what is no Unicode goes out all the same."""
    return "".join(f"%{byte:02X}" for byte in value.encode("utf-8", "surrogatepass"))


def status_of(scene: Scene, who: str, method: str, url: str, **extra: Any) -> int:
    """The status of one request; whatever it wrote is undone."""
    with transaction.atomic():
        response: Any = scene.clients[who].generic(method, url, **extra)
        if response.streaming:
            b"".join(response.streaming_content)
        assert "X-Injected" not in response.headers
        assert not [value for value in response.headers.values() if "\r" in value or "\n" in value]
        transaction.set_rollback(True)
    return int(response.status_code)


def test_no_query_leads_to_a_server_error(scene: Scene) -> None:
    broken = []
    for name in (name for name, row in TABLE.items() if "GET" in row):
        queries = ["&".join(f"{key}={encoded(value)}" for key in PARAMETERS) for value in ODD]
        if name in SEARCHING:
            # Alone too: where one is refused, the others are not looked at.
            queries += [f"{key}={encoded(NUL)}" for key in PARAMETERS]
        (who, *_others) = sorted(TABLE[name]["GET"])
        broken += [
            (name, one[:60]) for one in queries if status_of(scene, who, "GET", f"{scene.url(name)}?{one}") >= 500
        ]
    assert not broken


def test_no_form_leads_to_a_server_error(scene: Scene) -> None:
    broken = []
    for name in (name for name, row in TABLE.items() if "POST" in row and name != "login"):
        for value in ODD:
            body = "&".join(f"{key}={encoded(value)}" for key in FIELDS)
            (who, *_others) = sorted(TABLE[name]["POST"])
            sent = {"data": body, "content_type": "application/x-www-form-urlencoded"}
            if status_of(scene, who, "POST", scene.url(name), **sent) >= 500:
                broken.append((name, value[:30]))
    assert not broken


@pytest.mark.parametrize("value", ODD)
def test_signing_in_with_anything_is_no_server_error(value: str, scene: Scene) -> None:
    body = f"username={encoded(value)}&password={encoded(value)}&next={encoded(value)}"
    stranger = scene.clients["stranger"]
    response: Any = stranger.post("/sign-in/", body, content_type="application/x-www-form-urlencoded")
    assert response.status_code == 200


def test_no_address_leads_to_a_server_error(scene: Scene) -> None:
    values = [*(encoded(one) for one in ODD if len(one) < 1000), "9" * 5000, "..%2f..%2fetc%2fpasswd", "%2e%2e"]
    broken = []
    for name in (name for name, path in PATHS.items() if "<" in path):
        urls = [url for value in values for url in urls_with(scene, name, value)]
        for method in ("GET", "POST"):
            for who in sorted(TABLE[name].get(method, ()))[:1]:
                broken += [(name, url[:80]) for url in urls if status_of(scene, who, method, url) >= 500]
    assert not broken


def urls_with(scene: Scene, name: str, value: str) -> Iterator[str]:
    """The URL of a name with this value in the place of each of its arguments in turn."""
    arguments = re.findall(r"<(?:\w+:)?(\w+)>", PATHS[name])
    shape = re.sub(r"<(?:\w+:)?(\w+)>", r"(?P<\1>[^/]+?)", "/" + PATHS[name].replace(".", r"\."))
    found = re.fullmatch(shape, scene.url(name))
    assert found, name
    for odd in arguments:
        url = "/" + PATHS[name]
        for key in arguments:
            url = re.sub(rf"<(\w+:)?{key}>", (value if key == odd else found[key]).replace("\\", r"\\"), url)
        yield url
