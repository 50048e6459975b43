"""The way out of a build's network: a forward proxy on a listener that lies inside of it.

It takes CONNECT and absolute-form requests, asks ``builders.reach`` and dials the very addresses
that were judged, or the operator's own proxy where one is set. ``builders.confinement`` runs one
for each build, and the build's log tells where it led.
"""

import asyncio
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from tramontane.builders.reach import Reach, Upstream, choose, judge_forwarded, upstream_for
from tramontane.builders.settings import Log
from tramontane.domain.addresses import Address, read_address

HEAD_BYTES_MAX = 64 * 1024
HEAD_S = 60.0
CONNECT_S = 30.0
CHUNK_BYTES = 64 * 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te"})
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, kw_only=True)
class Request:
    """The head of one request to the proxy."""

    method: str
    host: str
    port: int
    path: str
    """Of an absolute-form request, with its query; of a CONNECT it is empty."""
    headers: tuple[tuple[str, str], ...]
    body_bytes: int

    @property
    def authority(self) -> str:
        """Host and port as they are written together."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Refused(Exception):
    """The request is answered here: with this status, for this reason."""

    def __init__(self, status: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def read_request(head: bytes) -> Request:
    """Return what a head asks for; raises ``Refused`` for what is not exactly that.

    Each connection carries one request, whose body has a known length: nothing can follow that
    was not judged.
    """
    line, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    try:
        method, target, _ = line.split(" ")
        tunnel = method == "CONNECT"
        parts = urlsplit(f"//{target}" if tunnel else target)
        port = parts.port or (None if tunnel else 80)
    except ValueError as error:
        raise Refused("400 Bad Request", "this is no request to a proxy") from error
    if not _TOKEN.fullmatch(method) or not parts.hostname or port is None:
        raise Refused("400 Bad Request", "this is no request to a proxy")
    if not tunnel and parts.scheme != "http":
        raise Refused("400 Bad Request", "only http:// addresses are asked for without CONNECT")
    headers = tuple(_read_header(each) for each in rest)
    names = [name.lower() for name, _ in headers]
    lengths = {value for name, value in headers if name.lower() == "content-length"}
    if "transfer-encoding" in names or len(lengths) > 1:
        raise Refused("411 Length Required", "a request body needs one Content-Length here")
    length = lengths.pop() if lengths else "0"
    if not length.isascii() or not length.isdigit():
        raise Refused("400 Bad Request", "its Content-Length is no number")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(
        method=method,
        host=parts.hostname.rstrip("."),
        port=port,
        path="" if tunnel else path,
        headers=headers,
        body_bytes=0 if tunnel else int(length),
    )


def make_head(request: Request, *, forwarded: bool, authorization: str) -> bytes:
    """Return the request as it is sent on: to the host itself, or to another proxy."""
    kept = [(name, value) for name, value in request.headers if name.lower() not in _HOP]
    target = request.path
    if not request.path:
        target, kept = request.authority, [("Host", request.authority)]
    elif forwarded:
        target = f"http://{request.authority}{request.path}"
    if request.path:
        kept.append(("Connection", "close"))
    if forwarded and authorization:
        kept.append(("Proxy-Authorization", authorization))
    lines = [f"{request.method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in kept)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Proxy:
    """Serves the build's one listener until it is closed."""

    def __init__(self, reach: Reach, log: Log) -> None:
        self._reach = reach
        self._log = log
        self._told: set[str] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Begin to serve."""
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """End everything that is still on its way."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._tasks.add(task)
        try:
            await self._carry((reader, writer))
        except Refused as refusal:
            body = f"{refusal.why}\n".encode()
            head = f"HTTP/1.1 {refusal.status}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            with suppress(OSError):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass  # one of the two sides went away, and the other is about to know
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _carry(self, client: Streams) -> None:
        async with asyncio.timeout(HEAD_S):
            request = read_request(await client[0].readuntil(b"\r\n\r\n"))
        remote = await self._connect(request)
        try:
            if request.path or not remote.direct:
                head = make_head(
                    request, forwarded=not remote.direct, authorization=remote.authorization
                )
                remote.streams[1].write(head)
            else:
                client[1].write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _exchange(client, remote.streams, request.body_bytes if request.path else None)
        finally:
            remote.streams[1].close()

    async def _connect(self, request: Request) -> "Remote":
        host, port = request.host, request.port
        upstream = upstream_for(self._reach, host, port, tunnel=not request.path)
        addresses = await _resolve(host, port)
        if upstream is None:
            allowed, why = choose(self._reach, host, port, addresses)
        else:
            allowed, why = [], judge_forwarded(self._reach, host, port, addresses)
        if why:
            self._tell(f"network: denied {request.authority}: {why}")
            raise Refused("403 Forbidden", f"{request.authority} is not reached from here: {why}")
        try:
            async with asyncio.timeout(CONNECT_S):
                if upstream is not None:
                    remote = await _dial_upstream(upstream)
                else:
                    remote = Remote(streams=await _dial(allowed, port))
        except (OSError, TimeoutError) as error:
            self._tell(f"network: failed {request.authority}: it does not answer")
            raise Refused("502 Bad Gateway", f"{request.authority} does not answer") from error
        self._tell(f"network: {request.authority}")
        return remote

    def _tell(self, line: str) -> None:
        """Say it once: a build asks for the same place again and again."""
        if line not in self._told:
            self._told.add(line)
            self._log(line)


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A connection to where a request goes, or to the proxy that takes it there."""

    streams: Streams
    direct: bool = True
    authorization: str = ""


async def _resolve(host: str, port: int) -> list[Address]:
    literal = read_address(host)
    if literal is not None:
        return [literal]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(ip_address(each[4][0]) for each in found))


async def _dial(addresses: Sequence[Address], port: int) -> Streams:
    """Connect to the first that answers."""
    refusal: OSError | None = None
    for address in addresses:
        try:
            return await asyncio.open_connection(str(address), port)
        except OSError as error:
            refusal = refusal or error
    assert refusal is not None, "there is an address"
    raise refusal


async def _dial_upstream(upstream: Upstream) -> Remote:
    streams = await asyncio.open_connection(
        upstream.host, upstream.port, ssl=True if upstream.encrypted else None
    )
    return Remote(streams=streams, direct=False, authorization=upstream.authorization)


async def _exchange(client: Streams, remote: Streams, length: int | None) -> None:
    """Carry both directions until the answer has ended."""
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_copy(client[0], remote[1], length))
            await _copy(remote[0], client[1], None)
            sending.cancel()
    except* OSError:
        pass  # one of the two sides is gone, which the other is about to learn


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, length: int | None
) -> None:
    """Pass on so many bytes, or all there are, and then that there are no more."""
    left = length
    while left is None or left > 0:
        data = await reader.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES))
        if not data:
            break
        writer.write(data)
        await writer.drain()
        left = None if left is None else left - len(data)
    if length is None and writer.can_write_eof():
        with suppress(OSError):
            writer.write_eof()


def _read_header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _TOKEN.fullmatch(name) or "\r" in value or "\n" in value or "\0" in value:
        raise Refused("400 Bad Request", "one of its headers is none")
    return name, value.strip(" \t")
