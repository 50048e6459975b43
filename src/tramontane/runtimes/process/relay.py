"""Carries bytes between a Unix socket outside a sandbox and a port inside, and the other way.

It lives in the supervisor, which is inside the sandbox's network and outside of all the rest. It
holds no buffers of its own: a side that cannot take more stops the reading of the other, so a slow
client slows the program and nothing else. The end of one direction is passed on and the other runs
on. There are no timeouts: a stream may be silent for hours.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import cast

Connect = Callable[[Callable[[], asyncio.BaseProtocol]], Awaitable[object]]
"""Connects a protocol from the factory to wherever this relay leads; raises OSError if refused."""

BACKLOG = 512
"""Connections that may wait to be accepted."""


class _Side(asyncio.Protocol):
    """One of the two connections of a pair."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._peer: _Side | None = None
        self._early: list[bytes] = []
        """What arrived before there was a peer: one read, since reading stops with it."""
        self._ended = False

    def join(self, peer: "_Side") -> None:
        """Begin to pass on to ``peer`` what arrives here."""
        assert self.transport is not None
        self._peer = peer
        if self._early:
            peer.write(b"".join(self._early))
            self._early.clear()
            self.transport.resume_reading()
        if self._ended:
            peer.end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports behave as asyncio's, but do not derive from them.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.write(data)
            return
        assert self.transport is not None
        self._early.append(data)
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self._peer is not None:
            self._peer.end()
        return True  # the other direction is still open

    def write(self, data: bytes) -> None:
        """Send on this connection."""
        if self.transport is not None:
            self.transport.write(data)

    def end(self) -> None:
        """Pass on that no more will come; with the second direction the connection is over."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._ended:
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the other end is gone, which connection_lost is about to tell
            return

    def pause_writing(self) -> None:
        if self._peer is not None and self._peer.transport is not None:
            self._peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None and self._peer.transport is not None:
            self._peer.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        peer, self._peer, self.transport = self._peer, None, None
        if peer is None:
            return
        peer.leave(reset=exc is not None)

    def leave(self, *, reset: bool) -> None:
        """End this connection because the other one has ended; a reset stays a reset."""
        self._peer = None
        if self.transport is None:
            return
        if reset:
            self.transport.abort()
        else:
            self.transport.close()


class _Accepted(_Side):
    """The connection that came in."""

    def __init__(self, relay: "Relay") -> None:
        super().__init__()
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._relay.accepted(self)


class Relay:
    """Accepts on a listening socket and carries each connection to where ``connect`` leads."""

    def __init__(self, listener: socket.socket, connect: Connect, tasks: asyncio.TaskGroup) -> None:
        self._listener = listener
        self._connect = connect
        self._tasks = tasks
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to accept; ends with the process."""
        loop = asyncio.get_running_loop()
        unix = self._listener.family == socket.AF_UNIX
        make_server = loop.create_unix_server if unix else loop.create_server
        # uvloop closes a server that nobody refers to.
        self._server = await make_server(
            lambda: _Accepted(self), sock=self._listener, backlog=BACKLOG
        )

    def accepted(self, side: _Side) -> None:
        """Find the other half of a new connection."""
        self._tasks.create_task(self._pair(side))

    async def _pair(self, side: _Side) -> None:
        other = _Side()
        try:
            await self._connect(lambda: other)
        except OSError:
            if side.transport is not None:
                side.transport.abort()
            return
        if side.transport is None:  # gone while we connected
            other.leave(reset=True)
        elif other.transport is None:
            side.leave(reset=True)
        else:
            side.join(other)
            other.join(side)


def listen_unix(path: str) -> socket.socket:
    """Return a socket that listens on ``path``, for this user only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(path)
    listener.listen(BACKLOG)
    return listener


def listen_loopback(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1 of this network namespace."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setblocking(False)
    listener.bind(("127.0.0.1", port))
    listener.listen(BACKLOG)
    return listener
