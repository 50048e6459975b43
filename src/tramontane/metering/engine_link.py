"""Connections to one engine: kept, lent to one request at a time, and never too many.

``metering.exchange`` borrows one per request. An engine's server has so many threads; requests
beyond that wait here in the order of their coming, where they can be counted.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

import httptools

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[object]]
"""Connects a protocol from the factory to the engine; raises OSError if it is refused."""


class Receiver(Protocol):
    """Who gets what an engine answers."""

    def engine_answers(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """The head of the answer is here."""
        ...

    def engine_says(self, piece: bytes) -> None:
        """A piece of the answer's body, without the framing."""
        ...

    def engine_ends(self) -> None:
        """The answer is complete."""
        ...

    def engine_fails(self, *, untouched: bool) -> None:
        """The connection was lost; ``untouched`` if nothing of an answer had come."""
        ...


class EngineConnection(asyncio.Protocol):
    """One connection; serves one receiver after another."""

    def __init__(self, link: "EngineLink") -> None:
        self._link = link
        self.transport: asyncio.Transport | None = None
        self.receiver: Receiver | None = None
        self.used = False
        """Whether an answer came over it before: then the engine may close it at any time."""
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._touched = False
        self._keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports behave as asyncio's, but do not derive from them.
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, receiver: Receiver, request: bytes) -> None:
        """Send a request, whose answer goes to ``receiver``."""
        assert self.transport is not None
        self.receiver, self._touched = receiver, False
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._touched = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.receiver is not None:
            self.receiver.engine_answers(self._parser.get_status_code(), self._headers)

    def on_body(self, piece: bytes) -> None:
        if self.receiver is not None:
            self.receiver.engine_says(piece)

    def on_message_complete(self) -> None:
        self._keep = self._parser.should_keep_alive()
        receiver, self.receiver = self.receiver, None
        self.used = True
        if self._keep:
            self._parser = httptools.HttpResponseParser(self)
            self._link.keep(self)
        elif self.transport is not None:
            self.transport.close()
        if receiver is not None:
            receiver.engine_ends()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._link.forget(self)
        receiver, self.receiver = self.receiver, None
        if receiver is not None:
            receiver.engine_fails(untouched=not self._touched)

    def abort_for(self, receiver: Receiver) -> None:
        """Hang up if it still answers this receiver."""
        if self.receiver is receiver:
            self.abort()

    def abort(self) -> None:
        """Hang up at once: the engine stops computing what nobody wants."""
        if self.transport is not None:
            self.transport.abort()

    def finish(self) -> None:
        """Say that nobody waits any more, and listen on: what was made by then is still told."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()


class EngineLink:
    """The way to one engine: so many requests at once, over connections that are kept."""

    def __init__(self, connect: Connect, requests_max: int) -> None:
        self._connect = connect
        self._requests_max = requests_max
        self._idle: list[EngineConnection] = []
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.running = 0
        """Requests that the engine has."""

    @property
    def queued(self) -> int:
        """Requests that wait for their turn."""
        return sum(not turn.cancelled() for turn in self._waiting)

    async def acquire(self) -> None:
        """Return when it is this request's turn; ``release`` must follow."""
        if self.running < self._requests_max:
            self.running += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.release()  # it was given the turn in the same moment
            raise

    def release(self) -> None:
        """Give the turn to the next in line."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                return
        self.running -= 1

    async def connect(self, *, fresh: bool = False) -> EngineConnection:
        """Return a connection that is nobody else's. Raises ``OSError`` if the engine is gone."""
        while self._idle and not fresh:
            kept = self._idle.pop()
            if kept.transport is not None and not kept.transport.is_closing():
                return kept
        connection = EngineConnection(self)
        await self._connect(lambda: connection)
        return connection

    def keep(self, connection: EngineConnection) -> None:
        """Keep a connection whose answer is complete."""
        self._idle.append(connection)

    def close(self) -> None:
        """Let go of the connections that are kept."""
        for connection in tuple(self._idle):
            connection.abort()

    def forget(self, connection: EngineConnection) -> None:
        """A connection is gone."""
        if connection in self._idle:
            self._idle.remove(connection)
