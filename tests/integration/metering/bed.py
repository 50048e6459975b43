"""The real engine with the bundled model behind a meter, and clients that misbehave."""

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tramontane.base.clock import SystemClock
from tramontane.domain.usage import Account, Price, UsageRecord
from tramontane.metering.allowances import Gate
from tramontane.metering.books import LINES, OPEN, Books, read_account, read_cut, read_lines
from tramontane.metering.engine_link import EngineLink
from tramontane.metering.engine_wire import LLAMA_CPP, read_timings
from tramontane.metering.exchange import Way
from tramontane.metering.meter import Meter

KEY = "tok_1"
ACCOUNT = Account(instance="ins_1", project="p", service="tiny", digest="sha256:0", cell="c")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
LONG: dict[str, Any] = {
    "model": "tiny",
    "prompt": "The capital of France is",
    "max_tokens": 900,
    "ignore_eos": True,
}
"""Goes on for as long as the context allows, so that there is time to break off."""


class ClientConnection:
    """One connection as the gateway makes them, read by hand so that it can be cut anywhere."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.request_id = ""

    async def send(self, path: str, body: Any, method: str = "POST") -> None:
        self.request_id = uuid.uuid4().hex
        raw = json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-tramontane-key: {KEY}\r\n"
            f"x-request-id: {self.request_id}\r\ncontent-length: {len(raw)}\r\n\r\n"
        )
        self._writer.write(head.encode() + raw)
        await self._writer.drain()

    async def read_head(self) -> tuple[int, dict[str, str]]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        return int(status.split()[1]), dict(line.lower().split(": ", 1) for line in lines)

    async def read_piece(self) -> bytes:
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def ask(self, path: str, body: Any, method: str = "POST") -> tuple[int, bytes]:
        await self.send(path, body, method)
        status, headers = await self.read_head()
        return status, await self.read_body(headers)

    async def read_body(self, headers: Mapping[str, str]) -> bytes:
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        pieces: list[bytes] = []
        while piece := await self.read_piece():
            pieces.append(piece)
        return b"".join(pieces)

    def cut(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


@dataclass
class Bed:
    """A meter before an engine."""

    meter: Meter
    directory: Path
    address: str
    clients: list[ClientConnection] = field(default_factory=list)

    async def connect(self) -> ClientConnection:
        client = ClientConnection(*await asyncio.open_unix_connection(self.address))
        self.clients.append(client)
        return client

    def records(self) -> list[UsageRecord]:
        with (self.directory / f"ins_1{LINES}").open("rb") as file:
            account, start = read_account(file) or (ACCOUNT, 0)
            return read_lines(file, account, start, 10**6)[0]

    def under_way(self) -> list[UsageRecord]:
        ended = frozenset(each.sequence for each in self.records())
        return list(read_cut(self.directory / f"ins_1{OPEN}", ACCOUNT, ended))

    async def record_of(self, client: ClientConnection) -> UsageRecord:
        """Return the record of a client's last request once it is written."""

        def find() -> UsageRecord | None:
            found = (each for each in self.records() if each.request_id == client.request_id)
            return next(found, None)

        await until(lambda: find() is not None)
        record = find()
        assert record is not None
        return record


@asynccontextmanager
async def metered(
    engine: str,
    directory: Path,
    *,
    requests_max: int = 120,
    price: Price | None = None,
    gate: Path | None = None,
) -> AsyncIterator[Bed]:
    address = str(directory / "in.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.setblocking(False)
    listener.bind(address)
    listener.listen(512)
    loop = asyncio.get_running_loop()
    books = Books(directory, replace(ACCOUNT, price=price or Price()))
    way = Way(
        engine=LLAMA_CPP,
        link=EngineLink(lambda made: loop.create_unix_connection(made, engine), requests_max),
        books=books,
        gate=Gate(gate or directory),
        clock=SystemClock(),
    )
    meter = Meter(listener, way)
    await meter.start()
    bed = Bed(meter=meter, directory=directory, address=address)
    try:
        yield bed
    finally:
        for client in bed.clients:
            await client.close()
        await meter.stop()
        books.close()
        way.gate.close()
        await until(lambda: not meter.connections)
        await asyncio.sleep(0)  # for what closes in the next turn of the loop


async def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)


def tokens_in(events: bytes) -> int:
    """Return how many tokens a stream said it had."""
    usage = read_timings(events)
    return usage.completion_tokens if usage is not None else 0
