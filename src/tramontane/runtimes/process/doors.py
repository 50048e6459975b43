"""How to reach the program of one instance: a port on its loopback, or the socket it made.

The supervisor's relay and probes both go through here, so what is probed is what is served.
"""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from tramontane.domain.definition import Probe, ProbeKind

_LOOPBACKS = ("127.0.0.1", "::1")
_STATUS_LINE_BYTES_MAX = 256


class Door(Protocol):
    """A way to the program."""

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> object:
        """Connect a protocol to the program; raises OSError if nothing listens."""
        ...


class PortDoor:
    """A port of the loopback device; some programs that say ``localhost`` mean IPv6 only."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._hosts = list(_LOOPBACKS)

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> object:
        """Connect to the port, trying first the address that worked last."""
        loop = asyncio.get_running_loop()
        refusal: OSError | None = None
        for host in tuple(self._hosts):
            try:
                connection = await loop.create_connection(factory, host, self._port)
            except OSError as error:
                refusal = refusal or error
                continue
            if self._hosts[0] != host:
                self._hosts.reverse()
            return connection
        assert refusal is not None
        raise refusal


class SocketDoor:
    """A socket that the program made in a directory that it can write to.

    Nobody connects to the program's own path: it could replace the socket by a symbolic link to
    any other socket of the host, and we or the gateway would walk there for it. Instead the socket
    is opened without following links and given a second name, a hard link, in a directory that the
    program cannot reach. That link is the instance's endpoint.
    """

    def __init__(self, made: Path, endpoint: Path) -> None:
        self._made = made
        self._endpoint = endpoint
        self._linked: tuple[int, int] | None = None

    async def connect(self, factory: Callable[[], asyncio.BaseProtocol]) -> object:
        """Connect to the newest socket the program made."""
        self._link()
        loop = asyncio.get_running_loop()
        return await loop.create_unix_connection(factory, str(self._endpoint))

    def _link(self) -> None:
        fd = os.open(self._made, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if not stat.S_ISSOCK(found.st_mode):
                raise FileNotFoundError(f"{self._made} is no socket")
            identity = (found.st_dev, found.st_ino)
            if identity == self._linked:
                return
            temporary = self._endpoint.with_suffix(".new")
            temporary.unlink(missing_ok=True)
            # Naming a directory makes Python call linkat(2), which can follow the link in /proc;
            # link(2) never does on Linux, whatever follow_symlinks says.
            os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
            temporary.replace(self._endpoint)
            self._linked = identity
        finally:
            os.close(fd)


async def probe(door: Door, how: Probe, timeout_s: float) -> str:
    """Ask the program once; return an empty text if it is healthy, else what was wrong."""
    try:
        async with asyncio.timeout(timeout_s):
            if how.kind is ProbeKind.TCP:
                await door.connect(_Knock)
                return ""
            asked = _Asked(how.path)
            await door.connect(lambda: asked)
            return judge(await asked.answer)
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except OSError as error:
        return f"cannot connect: {error.strerror or error}"


def judge(answer: bytes) -> str:
    """Return what is wrong with the first line of an HTTP answer; 200–399 is healthy."""
    version, _, rest = answer.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/") or not code.isdigit():
        return "the answer is no HTTP"
    return "" if 200 <= int(code) < 400 else f"HTTP status {code.decode()}"


class _Knock(asyncio.Protocol):
    """Connects and goes away."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Asked(asyncio.Protocol):
    """Sends one GET and waits for the first line of the answer."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # When the probe's time is over nobody waits any more, and the connection must not stay.
        self.answer.add_done_callback(lambda _: self._hang_up())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports behave as asyncio's, but do not derive from them.
        self._transport = cast(asyncio.Transport, transport)
        request = (
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: tramontane-probe\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n"
        )
        self._transport.write(request.encode("latin-1", errors="replace"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\n" in self._received or len(self._received) > _STATUS_LINE_BYTES_MAX:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self.answer.done():
            self.answer.set_result(self._received[:_STATUS_LINE_BYTES_MAX])

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
