"""The files and batches of a provider that speaks OpenAI's Batch API. One short event loop a request."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import httpx2
from pydantic import BaseModel, Field, ValidationError

from pld_app.errors import Refusal
from pld_app.model_edge.addresses import AddressRefusedError, check_url
from pld_app.model_edge.client import parse_retry_after
from pld_app.model_edge.errors import EndpointMisconfigured, ModelUnavailable
from pld_app.model_edge.replies import read_error
from pld_app.model_edge.transport import BodyEncodedError, BodyTooLargeError, GuardedTransport
from pld_app.model_edge.types import EndpointConfig

# The replies to 50,000 questions, with their envelopes.
MAX_FILE_BYTES = 1024 * 1024 * 1024
METADATA_KEY = "pld_batch"
_RETRY_S = 60.0
_PAGE = 100
_MOST_PAGES = 200
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})

Text = Annotated[str, Field(max_length=120)]


class BatchRefused(Refusal):
    """The provider will not do this, and asking again will not change it."""


class Counts(BaseModel):
    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchFault(BaseModel):
    message: str | None = None
    line: int | None = None


class BatchFaults(BaseModel):
    data: list[BatchFault] = []


class ProviderBatch(BaseModel):
    """What the provider says of a batch, as far as we look at it."""

    id: Text
    status: Annotated[str, Field(max_length=20)]
    output_file_id: Text | None = None
    error_file_id: Text | None = None
    request_counts: Counts | None = None
    errors: BatchFaults | None = None
    metadata: Mapping[str, str] | None = None

    @property
    def is_final(self) -> bool:
        return self.status in FINAL

    @property
    def complaint(self) -> str:
        """Why the provider would not start it."""
        faults = self.errors.data if self.errors else []
        return "; ".join(fault.message[:200] for fault in faults[:3] if fault.message)


class ProviderFile(BaseModel):
    id: Text
    filename: str = ""


class BatchClient:
    """Each method makes one request, or a page of them.

    Raises ModelUnavailable where waiting may help (then it is unknown whether a POST was carried out),
    EndpointMisconfigured for a refused key, BatchRefused for anything else the provider will not do.
    """

    def __init__(self, endpoint: EndpointConfig) -> None:
        try:
            check_url(endpoint.base_url)
        except AddressRefusedError as error:
            raise EndpointMisconfigured(str(error)) from error
        self._endpoint = endpoint
        self._base = endpoint.base_url.rstrip("/")

    @property
    def path(self) -> str:
        """The endpoint that answers each line of a batch, as the provider names it."""
        return "/v1/responses" if self._endpoint.api == "responses" else "/v1/chat/completions"

    def upload(self, name: str, lines: IO[bytes]) -> str:
        """Hand over a file of questions; its id."""
        found = self._json(
            "POST", "/files", data={"purpose": "batch"}, files={"file": (name, lines, "application/jsonl")}
        )
        return self._read(ProviderFile, found).id

    def find_file(self, name: str) -> str | None:
        """The id of a file that was handed over under this name, as far as the newest page tells."""
        rows = self._json("GET", "/files", params={"purpose": "batch"}).get("data", [])
        files = [self._read(ProviderFile, row) for row in rows]
        return next((file.id for file in files if file.filename == name), None)

    def create(self, input_file: str, key: str) -> ProviderBatch:
        """Have the provider start on a file. From here on it costs money."""
        body = {
            "input_file_id": input_file,
            "endpoint": self.path,
            "completion_window": "24h",
            "metadata": {METADATA_KEY: key},
        }
        return self._read(ProviderBatch, self._json("POST", "/batches", json=body))

    def find(self, key: str) -> ProviderBatch | None:
        """The batch that was started under this key, if there is one."""
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            page = self._json("GET", "/batches", params={"limit": str(_PAGE), **after})
            batches = [self._read(ProviderBatch, row) for row in page.get("data", [])]
            for batch in batches:
                if (batch.metadata or {}).get(METADATA_KEY) == key:
                    return batch
            if not batches or not page.get("has_more"):
                return None
            after = {"after": batches[-1].id}
        raise BatchRefused("The provider lists too many batches to find ours among them.")

    def get(self, batch_id: str) -> ProviderBatch:
        return self._read(ProviderBatch, self._json("GET", f"/batches/{batch_id}"))

    def cancel(self, batch_id: str) -> ProviderBatch:
        return self._read(ProviderBatch, self._json("POST", f"/batches/{batch_id}/cancel"))

    def download(self, file_id: str, into: Path) -> None:
        """The content of a file."""
        asyncio.run(self._download(file_id, into))

    def delete(self, file_id: str) -> None:
        """Have the provider forget a file."""
        self._json("DELETE", f"/files/{file_id}")

    async def _download(self, file_id: str, into: Path) -> None:
        async with self._answer("GET", f"/files/{file_id}/content") as response:
            with into.open("wb") as file:  # nothing else runs in this loop
                async for block in response.aiter_bytes():
                    file.write(block)

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return asyncio.run(self._json_answer(method, path, options))

    async def _json_answer(self, method: str, path: str, options: dict[str, Any]) -> dict[str, Any]:
        # A file of 200 MB takes as long as it takes; of every other request it is known when it cannot arrive any more.
        wall = None if "files" in options else self._endpoint.attempt_deadline_s
        try:
            async with asyncio.timeout(wall), self._answer(method, path, **options) as response:
                content = await response.aread()
        except TimeoutError as error:
            raise ModelUnavailable("The provider did not answer in time.", retry_after_s=_RETRY_S) from error
        try:
            value = json.loads(content)
        except ValueError as error:
            raise ModelUnavailable("The provider's answer is not JSON.", retry_after_s=_RETRY_S) from error
        return value if isinstance(value, dict) else {}

    def _read[T: BaseModel](self, kind: type[T], value: object) -> T:
        try:
            return kind.model_validate(value)
        except ValidationError as error:
            raise ModelUnavailable("The provider's answer has another form.", retry_after_s=_RETRY_S) from error

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx2.Response]:
        """A 2xx answer; everything else is raised. The options are httpx2's own, hence of any type."""
        silence = httpx2.Timeout(self._endpoint.timeout_s, connect=5, pool=5)
        transport = GuardedTransport(self._endpoint, max_bytes=MAX_FILE_BYTES)
        try:
            async with (
                httpx2.AsyncClient(transport=transport, timeout=silence, trust_env=False) as client,
                client.stream(method, self._base + path, **options) as response,
            ):
                if response.status_code >= 300:
                    self._raise(response.status_code, await response.aread(), response.headers)
                yield response
        except AddressRefusedError as error:
            raise EndpointMisconfigured(str(error)) from error
        except (httpx2.RequestError, BodyTooLargeError, BodyEncodedError) as error:
            raise ModelUnavailable("The provider could not be reached.", retry_after_s=_RETRY_S) from error

    def _raise(self, status: int, content: bytes, headers: httpx2.Headers) -> None:
        asked = parse_retry_after(headers, now=time.time())
        attempt = read_error(status, content, asked, self._endpoint.api_key)
        if attempt.fatal:
            raise EndpointMisconfigured(attempt.error)
        if attempt.retryable:
            raise ModelUnavailable(attempt.error, retry_after_s=asked or _RETRY_S)
        raise BatchRefused(attempt.error)
