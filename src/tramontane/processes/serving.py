"""Serves the API: uvicorn, with clients that are slow, broken or never done taken into account.

uvicorn waits for ever for the end of a request's headers, so that a few hundred idle connections
would take every descriptor the control plane may have; it lets an application answer a client
that it has already turned away; and when it stops, it waits for answers that go on by themselves.
``control`` serves the API with this.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADERS_S = 30.0
"""As long as the gateway gives its clients."""
STOP_S = 1
"""For requests that are being answered when the server stops."""
_SENTENCE = b"the request took too long to arrive\n"
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class ApiServer(uvicorn.Server):
    """uvicorn, leaving signals and logging to the control plane."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                http=Connection,
                ws="none",
                timeout_graceful_shutdown=STOP_S,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Install nothing."""
        yield


class Connection(H11Protocol):
    """One connection; its client has ``headers_s`` for the headers of each request."""

    headers_s = HEADERS_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; the waiting is over when it makes a request."""
        known = self._newest
        # Between requests uvicorn's own, shorter patience holds until the next one begins.
        if self._deadline is None and known is not None and known.response_complete:
            self._wait()
        super().data_received(data)
        if self._newest is not known:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Turn away what is no HTTP; if it is a body, whoever reads it need not answer."""
        if (cycle := self._newest) is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()
        super().send_400_response(msg)

    def shutdown(self) -> None:
        """Let what is being answered end, but for answers that go on by themselves."""
        super().shutdown()
        if (cycle := self._newest) is not None and cycle.response_started:
            self.transport.close()

    @property
    def _newest(self) -> RequestResponseCycle | None:
        return cast("RequestResponseCycle | None", self.cycle)  # None before the first

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.headers_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self.transport.write(_ANSWER)
        self.transport.close()
