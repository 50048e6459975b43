"""The meter of one instance: takes the gateway's connections and carries requests to the engine.

An instance's supervisor starts one in place of a plain relay. Every request for tokens is in the
books from its arrival to its end; nothing else of the engine can be reached through it, so that
nothing is computed uncounted and no prompt is seen through an engine's own pages.
"""

import asyncio
import socket
from typing import cast

import httptools

from tramontane.domain.trace import keep_traceparent
from tramontane.metering.books import Arrival
from tramontane.metering.exchange import JSON, Exchange, Way
from tramontane.metering.requests import BadRequest, error_body, prepare

BACKLOG = 512
"""Connections that may wait to be accepted."""
BODY_BYTES_MAX = 32 * 1024**2
"""As at the gateway, which on a model's own host lets pass what it does not read."""
KEY_HEADER = b"x-tramontane-key"
"""Set by the gateway from the verified key, never by clients."""
LIMITED = b"retry-after: %d\r\nx-envoy-ratelimited: true\r\n"
"""The second line keeps the gateway from asking an alias's next model, where the key is no better
off."""
REQUEST_ID_HEADER = b"x-request-id"
TRACE_HEADER = b"traceparent"
_REASONS = {
    200: b"OK",
    400: b"Bad Request",
    404: b"Not Found",
    429: b"Too Many Requests",
    503: b"Service Unavailable",
}


class Meter:
    """Listens at an instance's endpoint."""

    def __init__(self, listener: socket.socket, way: Way) -> None:
        self._listener = listener
        self.way = way
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()
        self.connections: set[_GatewayConnection] = set()

    async def start(self) -> None:
        """Begin to accept; ends with the process."""
        loop = asyncio.get_running_loop()
        # uvloop closes a server that nobody refers to.
        self._server = await loop.create_unix_server(
            lambda: _GatewayConnection(self), sock=self._listener, backlog=BACKLOG
        )

    async def stop(self) -> None:
        """Break off what is under way and accept no more."""
        for task in tuple(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self.way.link.close()
        for connection in tuple(self.connections):
            connection.hang_up()
        if self._server is not None:
            self._server.close()

    def run(self, exchange: Exchange) -> asyncio.Task[None]:
        """Let an exchange go on by itself until its end."""
        task = asyncio.get_running_loop().create_task(exchange.run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task


class _GatewayConnection(asyncio.Protocol):
    """One connection from the gateway: one request after another."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._path = b""
        self._key = self._request_id = self._trace = ""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports behave as asyncio's, but do not derive from them.
        self._transport = cast(asyncio.Transport, transport)
        self._meter.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._meter.connections.discard(self)
        if self._exchange is not None and self._task is not None and self._exchange.leave():
            self._task.cancel()

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.resume()

    # What the parser finds.

    def on_message_begin(self) -> None:
        self._path, self._key, self._request_id, self._trace = b"", "", "", ""
        self._body, self._body_bytes = [], 0

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == KEY_HEADER:
            self._key = value.decode("latin-1")
        elif lower == REQUEST_ID_HEADER:
            self._request_id = value.decode("latin-1")
        elif lower == TRACE_HEADER:
            self._trace = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        self._body_bytes += len(piece)
        if self._body_bytes <= BODY_BYTES_MAX:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._exchange is not None:
            self.hang_up()  # the gateway never sends a request before it has the last answer
            return
        if self._parser.get_method() != b"POST":
            self._refuse(404, "not_found", "there is no such path here")
            return
        if self._body_bytes > BODY_BYTES_MAX:
            self._refuse(413, "body_too_large", "the request body is too large")
            return
        self._take_up(self._path.partition(b"?")[0], b"".join(self._body))

    def _take_up(self, path: bytes, body: bytes) -> None:
        way = self._meter.way
        prepared = prepare(path, body, way.engine)
        if isinstance(prepared, BadRequest):
            self.send_answer(prepared.status, JSON, prepared.body())
            return
        now = way.clock.now()
        arrival = Arrival(
            request_id=self._request_id,
            key=self._key,
            model=prepared.model,
            api=prepared.api,
            at=now,
            traceparent=keep_traceparent(self._trace),
        )
        if way.books.is_full():
            self._refuse(503, "too_many_requests", "the model has too many requests to hold more")
            return
        with way.gate.turn(self._key) as turn:
            over = turn.admit(now)
            entry = way.books.begin(arrival) if over is None else None
        if entry is None:
            assert over is not None
            self._refuse(429, over.code, over.message, retry_after_s=over.retry_after_s)
            return
        self._exchange = Exchange(way, self, prepared, entry)
        self._task = self._meter.run(self._exchange)

    def _refuse(
        self, status: int, code: str, message: str, retry_after_s: int | None = None
    ) -> None:
        body = error_body(status, code, message)
        retry = b"" if retry_after_s is None else LIMITED % retry_after_s
        self._write(_head(status, JSON) + retry + b"content-length: %d\r\n\r\n" % len(body) + body)

    # What an exchange sends.

    def begin_stream(self, status: int, content_type: bytes) -> None:
        self._write(
            _head(status, content_type) + b"transfer-encoding: chunked\r\n\r\n",
        )

    def send_piece(self, piece: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end_stream(self) -> None:
        self._exchange = self._task = None
        self._write(b"0\r\n\r\n")

    def send_answer(self, status: int, content_type: bytes, body: bytes) -> None:
        self._exchange = self._task = None
        self._write(_head(status, content_type) + b"content-length: %d\r\n\r\n" % len(body) + body)

    def hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _head(status: int, content_type: bytes) -> bytes:
    reason = _REASONS.get(status, b"-")
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n" % (status, reason, content_type)
