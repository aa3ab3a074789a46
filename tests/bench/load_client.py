"""A load generator for one URL: `python -m tests.bench.load_client '{"port": ..., "head": ..., ...}'`, JSON on stdout.

Each connection is kept alive and sends its next request when it has read the last answer whole (closed loop).
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field


@dataclass
class Load:
    """What to send and what came back. `latencies` in seconds, of every request after the warm-up."""

    port: int
    head: str
    connections: int
    requests: int
    status: int
    latencies: list[float] = field(default_factory=list)
    sent: int = 0


async def _one_answer(reader: asyncio.StreamReader) -> int:
    """Read one answer whole; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split(" ")[1])
    if status != 304:
        await reader.readexactly(int(headers["content-length"]))
    return status


async def _connection(load: Load) -> None:
    request = load.head.encode("latin-1")
    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    while load.sent < load.requests:
        load.sent += 1
        started = time.perf_counter()
        writer.write(request)
        status = await _one_answer(reader)
        load.latencies.append(time.perf_counter() - started)
        if status != load.status:
            raise RuntimeError(f"answered {status} instead of {load.status}")
    writer.close()


async def _run(load: Load) -> float:
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(load.connections):
            group.create_task(_connection(load))
    return time.perf_counter() - started


def main() -> None:
    load = Load(**json.loads(sys.argv[1]))
    seconds = asyncio.run(_run(load))
    print(json.dumps({"seconds": seconds, "latencies": load.latencies}))  # noqa: T201


if __name__ == "__main__":
    main()
