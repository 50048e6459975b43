"""Sends calls with nothing but the standard library: what the command line uses.

Importing httpx and pydantic takes longer than most commands run, so ``tram`` talks through this;
programs use ``wire.client``. One connection per call; no proxy is used, since the platform is
usually on this machine.
"""

import contextlib
import json
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Protocol
from urllib.parse import urlsplit

from tramontane.base.errors import NotFound, TimedOut, TramontaneError, Unavailable
from tramontane.base.ids import IdFactory
from tramontane.wire.calls import Call
from tramontane.wire.codes import error_from_answer, retry_after
from tramontane.wire.retries import retry_delay_s
from tramontane.wire.streams import decoder_for

CHUNK_BYTES = 64 * 1024


class Sender(Protocol):
    """What can send a call: the real one below, or a fake API in tests."""

    def fetch(self, call: Call) -> Any:
        """Return the parsed JSON answer (None if empty); raise a ``TramontaneError`` otherwise."""
        ...

    def stream(self, call: Call) -> Iterator[bytes]:
        """Yield the documents of a streaming answer as they arrive."""
        ...


class PlainSender:
    """Sends calls to one address. Not for concurrent use."""

    def __init__(
        self, address: str, token: str | None, *, ids: IdFactory, pause: Callable[[float], object]
    ) -> None:
        self._address = address
        self._token = token
        self._ids = ids
        self._pause = pause

    def fetch(self, call: Call) -> Any:
        """Return the parsed JSON answer; repeat where that is harmless and may help."""
        body = bytearray()
        with self._answer(call) as answer:
            while chunk := self._read_some(answer):
                body += chunk
        try:
            return json.loads(body) if body.strip() else None
        except (ValueError, RecursionError) as error:
            raise Unavailable(
                f"{self._address} did not answer with JSON: check that it is the platform's API"
            ) from error

    def stream(self, call: Call) -> Iterator[bytes]:
        """Yield the documents of the answer as they arrive."""
        decoder = decoder_for(call.accept)
        with self._answer(call) as answer:
            while chunk := self._read_some(answer):
                yield from decoder.feed(chunk)
            yield from decoder.finish()

    def _read_some(self, answer: HTTPResponse) -> bytes:
        try:
            return answer.read1(CHUNK_BYTES)
        except TimeoutError as error:
            raise TimedOut(f"{self._address} stopped sending: try again") from error
        except (OSError, HTTPException) as error:
            raise Unavailable(f"the connection to {self._address} broke ({error})") from error

    @contextlib.contextmanager
    def _answer(self, call: Call) -> Generator[HTTPResponse]:
        """Send until there is an answer worth having; its body is still to be read."""
        key = self._ids("key") if call.changes else None
        attempt = 0
        while True:
            connection = self._connect(call)
            outcome = self._attempt(connection, call, key)
            if isinstance(outcome, HTTPResponse):
                break
            connection.close()
            delay_s = retry_delay_s(
                call,
                attempt,
                status=outcome.status,
                retry_after_s=outcome.error.retry_after_s,
            )
            if outcome.final or delay_s is None:
                raise outcome.error from outcome.cause
            self._pause(delay_s)
            attempt += 1
        with contextlib.closing(connection):
            yield outcome

    def _connect(self, call: Call) -> HTTPConnection:
        parts = urlsplit(self._address)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=call.timeout_s)
        try:
            connection.connect()
        except OSError as error:
            # Not repeated: nobody listens, and saying so at once is the better service.
            raise Unavailable(
                f"no platform answers at {self._address}: start one with `tram up`"
            ) from error
        return connection

    def _attempt(
        self, connection: HTTPConnection, call: Call, key: str | None
    ) -> "HTTPResponse | _Failure":
        try:
            self._send(connection, call, key)
            answer = connection.getresponse()
            if answer.status < 400:
                return answer
            wait_s = retry_after(answer.headers.get("retry-after"))
            error = error_from_answer(answer.status, answer.read(), wait_s)
            return _Failure(error=error, status=answer.status)
        except TimeoutError as cause:
            error = TimedOut(
                f"{self._address} did not answer {call.method} {call.path} within "
                f"{call.timeout_s or 0:g} s: see `tram status`"
            )
            return _Failure(error=error, cause=cause, final=True)
        except (OSError, HTTPException) as cause:
            error = Unavailable(f"the connection to {self._address} broke ({cause})")
            return _Failure(error=error, cause=cause)

    def _send(self, connection: HTTPConnection, call: Call, key: str | None) -> None:
        headers = {"Accept": call.accept, "User-Agent": "tram"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        if call.body is not None or call.file is not None:
            headers["Content-Type"] = call.content_type
        target = urlsplit(self._address).path + call.target
        if call.file is None:
            connection.request(call.method, target, call.body, headers)
            return
        headers["Content-Length"] = str(call.file.stat().st_size)
        # A server that refuses the file answers before it has read it all and hangs up; its
        # answer says more than the broken pipe.
        hung_up = contextlib.suppress(BrokenPipeError, ConnectionResetError)
        with call.file.open("rb") as body, hung_up:
            connection.request(call.method, target, body, headers)


@dataclass(frozen=True, kw_only=True)
class _Failure:
    error: TramontaneError
    status: int | None = None
    cause: BaseException | None = None
    final: bool = False


def is_present(sender: Sender, call: Call) -> bool:
    """Return whether the object of a HEAD call exists."""
    try:
        sender.fetch(call)
    except NotFound:
        return False
    return True
