"""Where a supervisor takes requests from the control plane, and tells it what it sees.

One line of JSON per request: ``{"op": "watch"}`` is answered by the newest observation and then by
one line per change until the connection ends, which it does when the supervisor is gone.
``stop``, ``kill`` and ``execute`` are answered once. The socket lies in a directory that only the
platform's user can enter, so whoever can connect may ask.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from tramontane.runtimes.process.protocol import LINE_BYTES_MAX, to_line

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Handles one request; errors are part of the answer."""

_CLOSE_LOOK_S = 0.001


class ControlServer:
    """The control socket of one supervisor."""

    def __init__(self, answer: Answer, tasks: asyncio.TaskGroup) -> None:
        self._answer = answer
        self._tasks = tasks
        self._watching: set[asyncio.Transport] = set()
        self._newest: Mapping[str, Any] = {}
        self._server: asyncio.Server | None = None
        self._finished = False

    async def start(self, listener: socket.socket) -> None:
        """Begin to take requests on a socket that already listens."""
        loop = asyncio.get_running_loop()
        # uvloop closes a server that nobody refers to.
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=128
        )

    def publish(self, newest: Mapping[str, Any]) -> None:
        """Tell everyone who watches."""
        self._newest = newest
        for transport in self._watching:
            transport.write(to_line(newest))

    async def finish(self) -> None:
        """Return when everyone who watches has been sent everything."""
        self._finished = True
        for transport in list(self._watching):
            transport.close()
        while self._watching:
            await asyncio.sleep(_CLOSE_LOOK_S)

    def take(self, transport: asyncio.Transport, request: Mapping[str, Any]) -> None:
        """Handle one request."""
        if request.get("op") == "watch":
            transport.write(to_line(self._newest))
            if self._finished:
                transport.close()
            else:
                self._watching.add(transport)
        elif self._finished:
            transport.close()
        else:
            self._tasks.create_task(self._reply(transport, request))

    def lost(self, transport: asyncio.Transport) -> None:
        """Forget a connection."""
        self._watching.discard(transport)

    async def _reply(self, transport: asyncio.Transport, request: Mapping[str, Any]) -> None:
        answer = await self._answer(request)
        if not transport.is_closing():
            transport.write(to_line(answer))


class _Connection(asyncio.Protocol):
    def __init__(self, server: ControlServer) -> None:
        self._server = server
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports behave as asyncio's, but do not derive from them.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            self._transport.abort()
            return
        for line in lines:
            try:
                request = json.loads(line)
            except json.JSONDecodeError:
                self._transport.abort()
                return
            self._server.take(self._transport, request)

    def connection_lost(self, exc: Exception | None) -> None:
        assert self._transport is not None
        self._server.lost(self._transport)
