"""Hangs up on clients that do not get around to saying what they want.

uvicorn waits for ever for the end of a request's headers, so that a few hundred idle connections
would take every descriptor the control plane may have. ``control`` serves the API with this.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

HEADERS_S = 30.0
"""As long as the gateway gives its clients."""
_SENTENCE = b"the request took too long to arrive\n"
_ANSWER = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class PatientProtocol(H11Protocol):
    """One connection; its client has ``headers_s`` for the headers of each request."""

    headers_s = HEADERS_S
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take what came; the waiting is over when it makes a request."""
        known = cast("RequestResponseCycle | None", self.cycle)  # None before the first
        # Between requests uvicorn's own, shorter patience holds until the next one begins.
        if self._deadline is None and known is not None and known.response_complete:
            self._wait()
        super().data_received(data)
        if self.cycle is not known:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

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
