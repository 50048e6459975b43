"""A real Envoy, our gateway, and small upstreams on Unix sockets: all in one short directory."""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from tests.integration.gateway.keys import Signer
from tramontane.base.clock import SystemClock
from tramontane.domain.load import UpstreamLoad
from tramontane.domain.route import (
    AliasRoute,
    Choice,
    EgressRoute,
    KeyTrust,
    Refusal,
    ServiceRoute,
    Upstream,
)
from tramontane.gateway.bootstrap import EnvoyPaths
from tramontane.gateway.envoy import Envoy, EnvoyOptions
from tramontane.gateway.gateway import Gateway, GatewayCallbacks
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.server import Rejection

PATIENCE_S = 20.0

Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request as an upstream got it, and the means to answer."""

    method: str
    path: str
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            whole = b""
            while size := int((await self.reader.readuntil(b"\r\n")).strip(), 16):
                whole += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
            return whole
        return await self.reader.readexactly(int(self.headers.get("content-length", "0")))

    async def answer(self, body: bytes, *, status: int = 200, kind: str = "text/plain") -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\ncontent-type: {kind}\r\n\r\n"
        self.writer.write(head.encode() + body)
        await self.writer.drain()


async def echo(exchange: Exchange) -> None:
    """Answer with what was asked."""
    body = await exchange.body()
    said = {
        "method": exchange.method,
        "path": exchange.path,
        "headers": exchange.headers,
        "length": len(body),
        "sum": sum(body),
    }
    await exchange.answer(json.dumps(said).encode(), kind="application/json")


@dataclass
class Server:
    """A small upstream on a Unix socket."""

    path: str
    handler: Handler
    backlog: int = 4096
    seen: list[Exchange] = field(default_factory=list)
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> "Server":
        self.server = await asyncio.start_unix_server(
            self._serve, self.path, limit=2**20, backlog=self.backlog
        )
        return self

    async def close(self) -> None:
        assert self.server
        self.server.close()
        for writer in self.writers:
            writer.close()
        with suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108 - one file, in a test

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {
                    key.lower(): value
                    for line in head[1:]
                    if line
                    for key, _, value in [line.partition(": ")]
                }
                exchange = Exchange(method, path, headers, reader, writer)
                self.seen.append(exchange)
                await self.handler(exchange)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


class Bed:
    """What a test talks to."""

    def __init__(self, directory: Path, **options: object) -> None:
        self.directory = directory
        self.port = free_port()
        self.signer = Signer()
        self.wakes: asyncio.Queue[str] = asyncio.Queue()
        self.loads: list[UpstreamLoad] = []
        self.rejections: list[Rejection] = []
        self.routes: dict[str, ServiceRoute] = {}
        self.egress: dict[str, EgressRoute] = {}
        self.aliases: dict[str, AliasRoute] = {}
        self.revoked: frozenset[str] = frozenset()
        self.servers: list[Server] = []
        self.options = GatewayOptions(
            port=self.port,
            access_log=directory / "access.log",
            egress_log=directory / "egress.log",
            files_socket=directory / "files.sock",
            load_interval_s=0.2,
        )
        self.options = replace(self.options, **options)  # pyright: ignore[reportArgumentType]
        self.paths = EnvoyPaths(directory=directory / "envoy", sockets=directory)
        self.envoy = self.make_envoy()
        self.gateway = self.make_gateway()

    def make_envoy(self) -> Envoy:
        options = EnvoyOptions(drain_s=1)
        if level := os.environ.get("ENVOY_LOG"):
            options = replace(options, log_level=level, component_log_levels=f"config:{level}")
        return Envoy(paths=self.paths, options=options, clock=SystemClock())

    def make_gateway(self) -> Gateway:
        return Gateway(
            socket_path=self.paths.xds_socket,
            clock=SystemClock(),
            callbacks=GatewayCallbacks(
                on_wake=self.wakes.put_nowait,
                on_load=self.loads.append,
                on_rejected=self.rejections.append,
            ),
            options=self.options,
        )

    @property
    def trust(self) -> KeyTrust:
        return KeyTrust(public_jwk=self.signer.jwk, issuer="tramontane", revoked=self.revoked)

    async def start(self) -> None:
        await self.gateway.start()
        self.publish_all()
        self.envoy.ensure_running()
        await self.envoy.wait_ready(PATIENCE_S)
        await self.applied()

    async def restart_gateway(self) -> None:
        """The control plane dies and comes back with the same state."""
        await self.gateway.close()
        self.gateway = self.make_gateway()
        await self.gateway.start()
        self.publish_all()

    async def close(self) -> None:
        await self.gateway.close()
        if self.envoy.pid is not None:
            os.kill(self.envoy.pid, signal.SIGKILL)
        for server in self.servers:
            await server.close()

    async def serve(self, name: str, handler: Handler = echo, backlog: int = 4096) -> Server:
        server = await Server(str(self.directory / name), handler, backlog).start()
        self.servers.append(server)
        return server

    def publish_all(self) -> None:
        self.gateway.publish_all(
            self.routes.values(), self.egress.values(), self.trust, self.aliases.values()
        )

    def publish_alias(self, alias: str, *choices: Choice, **limits: float) -> None:
        route = AliasRoute(project="p", alias=alias, choices=choices, **limits)
        self.aliases[alias] = route
        self.gateway.publish_alias(route)

    def publish(
        self,
        service: str,
        target: Upstream | Refusal,
        *,
        deadline_s: float = 10.0,
        model: str | None = None,
        key_required: bool = False,
    ) -> None:
        route = ServiceRoute(
            project="p",
            service=service,
            target=target,
            start_deadline_s=deadline_s,
            model=model,
            key_required=key_required,
        )
        self.routes[service] = route
        self.gateway.publish_service(route)

    async def applied(self) -> None:
        await self.gateway.wait_applied(PATIENCE_S)

    async def woken(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return await self.wakes.get()

    def client(self, **options: object) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=PATIENCE_S,
            limits=limits,
            trust_env=False,
            **options,  # pyright: ignore[reportArgumentType]
        )

    async def ask(self, service: str, path: str = "/", **options: object) -> httpx.Response:
        headers = {"host": f"{service}.p.localhost", **options.pop("headers", {})}  # pyright: ignore[reportGeneralTypeIssues]
        method = str(options.pop("method", "POST" if "content" in options else "GET"))
        async with self.client() as client:
            return await client.request(method, path, headers=headers, **options)  # pyright: ignore[reportArgumentType]

    async def infer(
        self,
        body: object,
        *,
        key: str | None,
        path: str = "/v1/chat/completions",
        headers: dict[str, str] | None = None,
    ):
        headers = {**(headers or {}), **({"authorization": f"Bearer {key}"} if key else {})}
        async with self.client() as client:
            return await client.post(path, json=body, headers=headers)

    async def log_lines(self, count: int, path: Path | None = None) -> list[dict]:
        """Wait until the access log has at least so many lines."""
        file = path or self.options.access_log

        def read() -> list[dict]:
            text = file.read_text() if file.exists() else ""
            return [json.loads(line) for line in text.splitlines()]

        await until(lambda: len(read()) >= count)
        return read()

    async def stat(self, name: str) -> int:
        answer = await self.envoy.ask_admin("GET", f"/stats?filter=^{name}$")
        return int(answer.text.rpartition(": ")[2] or 0)


def awake(name: str, *servers: Server) -> Upstream:
    return Upstream(name=name, endpoints=tuple(server.path for server in servers))


def asleep(name: str) -> Upstream:
    return Upstream(name=name, endpoints=None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def make_bed(**options: object) -> AsyncIterator[Bed]:
    directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
    bed = Bed(directory, **options)
    try:
        yield bed
    finally:
        if os.environ.get("ENVOY_LOG"):
            sys.stdout.write(bed.paths.log.read_text())
        await bed.close()
        shutil.rmtree(directory, ignore_errors=True)
