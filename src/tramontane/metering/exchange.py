"""One request and its answer, on their way through the meter.

``metering.meter`` makes an ``Exchange`` per request. It sends the engine what ``requests`` has made
of it, writes every count into the books before it passes on what was counted, and ends the engine's
work when nobody waits for it any more.
"""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tramontane.base.clock import Clock
from tramontane.domain.usage import RequestEnd, Usage
from tramontane.metering.allowances import Gate
from tramontane.metering.books import Books, Entry
from tramontane.metering.engine_link import EngineConnection, EngineLink
from tramontane.metering.engine_wire import EngineWire, read_answer
from tramontane.metering.merging import Merged
from tramontane.metering.requests import Prepared, error_body

EVENT_STREAM = b"text/event-stream"
JSON = b"application/json"
GONE_STATUS = 503
STOP_S = 5.0
"""An engine that goes on for longer without a client is made to stop."""


class Client(Protocol):
    """Who asked: what an exchange needs of the connection to the gateway."""

    def begin_stream(self, status: int, content_type: bytes) -> None:
        """Send the head of an answer whose end is not known yet."""
        ...

    def send_piece(self, piece: bytes) -> None:
        """Send a piece of it."""
        ...

    def end_stream(self) -> None:
        """Send its end."""
        ...

    def send_answer(self, status: int, content_type: bytes, body: bytes) -> None:
        """Send a whole answer."""
        ...

    def hang_up(self) -> None:
        """Break off: what was sent is not the whole answer."""
        ...


@dataclass(frozen=True, kw_only=True)
class Way:
    """What all exchanges of a meter share."""

    engine: EngineWire
    link: EngineLink
    books: Books
    gate: Gate
    clock: Clock


class Exchange:
    """Carries one request to the engine and the answer back; a ``Receiver``."""

    def __init__(self, way: Way, client: Client, prepared: Prepared, entry: Entry) -> None:
        self._way = way
        self._client = client
        self._prepared = prepared
        self._entry = entry
        self._connection: EngineConnection | None = None
        self._ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        """True when the answer is complete, False if the engine went away."""
        self._status = 0
        self._content_type = JSON
        self._stream = False
        """The engine answers with events."""
        self._begun = False
        """The client has got the head of a stream."""
        self._held = b""
        """Part of an event whose rest is to come."""
        self._collected: list[bytes] = []
        """An answer that is no stream."""
        self._merged = Merged(prepared.api) if prepared.merge else None
        self._untouched = False
        """The engine went away before it had begun to answer."""
        self.client_gone = False

    async def run(self) -> None:
        """Return when the request has ended, whatever its end; it is in the books then."""
        end = RequestEnd.CUT
        try:
            await self._way.link.acquire()
            try:
                end = await self._ask()
            finally:
                self._way.link.release()
        except asyncio.CancelledError:
            # It never reached the engine, or the meter itself comes to its end.
            if self._connection is not None:
                self._connection.abort()
        finally:
            if self.client_gone:
                end = RequestEnd.ABORTED
            self._settle(end)

    def leave(self) -> bool:
        """The client is gone. Return whether there is nothing to wait for.

        The engine stops when it finds its client gone, which is after a token or two; what it
        tells of them until then is counted. What cannot be counted half way goes on to its end.
        """
        self.client_gone = True
        if self._connection is None:
            return True
        if self._prepared.streams:
            self._connection.finish()
            loop = asyncio.get_running_loop()
            loop.call_later(STOP_S, self._connection.abort_for, self)
        return False

    def pause(self) -> None:
        """The client takes no more for now."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """The client takes more again."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.resume_reading()

    async def _ask(self) -> RequestEnd:
        request = _encode(self._prepared)
        for fresh in (False, True):
            try:
                self._connection = await self._way.link.connect(fresh=fresh)
            except OSError:
                break
            reused = self._connection.used
            self._connection.ask(self, request)
            if await self._ended:
                return self._finish()
            if self.client_gone or not (reused and self._untouched):
                break
            # The engine closed a kept connection just as the request was on its way.
            self._ended = asyncio.get_running_loop().create_future()
        return self._fail()

    # What the engine does.

    def engine_answers(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status
        self._content_type = dict(headers).get(b"content-type", JSON)
        self._stream = status == 200 and self._content_type.startswith(EVENT_STREAM)
        if self._stream and self._merged is None and not self.client_gone:
            self._begun = True
            self._client.begin_stream(status, self._content_type)

    def engine_says(self, piece: bytes) -> None:
        if not self._stream:
            self._collected.append(piece)
            return
        events = self._held + piece if self._held else piece
        cut = events.rfind(b"\n\n") + 2
        self._held = events[cut:] if cut > 1 else events
        if cut > 1:
            events = events[:cut]
            usage = self._way.engine.read_piece(events)
            if usage is not None:
                self._count(usage)
            if self._merged is not None:
                self._merged.add(events)
        if self._begun and not self.client_gone:
            self._client.send_piece(piece)

    def engine_ends(self) -> None:
        if not self._ended.done():
            self._ended.set_result(True)

    def engine_fails(self, *, untouched: bool) -> None:
        self._untouched = untouched
        if not self._ended.done():
            self._ended.set_result(False)

    def _settle(self, end: RequestEnd) -> None:
        way, now = self._way, self._way.clock.now()
        # In one turn: whoever else has one finds books and allowances in agreement.
        with way.gate.turn(self._entry.arrival.key) as turn:
            record = way.books.end(self._entry, end, self._status, now)
            tokens = record.usage.prompt_tokens + record.usage.completion_tokens
            turn.settle(tokens=tokens, cost=record.cost, now=now)

    def _count(self, usage: Usage) -> None:
        if usage != self._entry.usage:
            self._way.books.count(self._entry, usage, self._way.clock.now())

    def _finish(self) -> RequestEnd:
        if self._begun:
            self._client.end_stream()
        elif self._merged is not None and self._stream:
            return self._finish_merged(self._merged)
        else:
            body = b"".join(self._collected)
            if self._status == 200:
                self._count_answer(body)
            self._client.send_answer(self._status, self._content_type, body)
        return RequestEnd.FINISHED if self._status < 400 else RequestEnd.REFUSED

    def _finish_merged(self, merged: Merged) -> RequestEnd:
        answer = merged.answer()
        if answer is not None:
            usage = read_answer(answer)
            if usage is not None:
                self._count(usage)
            self._client.send_answer(200, JSON, json.dumps(answer).encode())
            return RequestEnd.FINISHED
        if merged.error is not None:
            self._status = 500
            self._client.send_answer(500, JSON, json.dumps(merged.error).encode())
            return RequestEnd.REFUSED
        return self._fail()

    def _count_answer(self, body: bytes) -> None:
        try:
            answer: object = json.loads(body)
        except (ValueError, RecursionError):
            return
        if isinstance(answer, dict):
            usage = read_answer(cast("dict[str, Any]", answer))
            if usage is not None:
                self._count(usage)

    def _fail(self) -> RequestEnd:
        if self.client_gone:
            return RequestEnd.ABORTED
        if self._begun:
            self._client.hang_up()
        else:
            self._status = GONE_STATUS
            message = "the model's engine went away before it answered; trying again may succeed"
            body = error_body(GONE_STATUS, "instance_unreachable", message)
            self._client.send_answer(GONE_STATUS, JSON, body)
        return RequestEnd.CUT


def _encode(prepared: Prepared) -> bytes:
    return (
        f"POST {prepared.path} HTTP/1.1\r\nhost: engine\r\ncontent-type: application/json\r\n"
        f"content-length: {len(prepared.body)}\r\n\r\n"
    ).encode() + prepared.body
