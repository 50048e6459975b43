"""The product's gateway as a bench needs it: the real ``Gateway`` and ``Envoy``, and a key.

Everything is configured by the product's own code; only the number of worker threads is ours to
say, since both sides of a comparison get the same.
"""

import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tramontane.api.tokens import TokenIssuer, load_signing_key
from tramontane.base.clock import SystemClock
from tramontane.base.ids import random_id
from tramontane.domain.route import KeyTrust, ServiceRoute
from tramontane.domain.token import Scope
from tramontane.gateway.bootstrap import EnvoyPaths
from tramontane.gateway.envoy import Envoy, EnvoyOptions
from tramontane.gateway.gateway import Gateway, GatewayCallbacks
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.server import Rejection
from tramontane.store.store import open_store

PROJECT = "bench"
START_S = 20.0
STORE = "bench.db"


@dataclass(frozen=True, kw_only=True)
class RunningGateway:
    """A gateway that serves."""

    port: int
    pid: int
    """Of its Envoy."""
    access_log: Path


def free_port() -> int:
    """Return a TCP port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@asynccontextmanager
async def run_gateway(
    routes: Iterable[ServiceRoute], trust: KeyTrust, directory: Path, workers: int
) -> AsyncIterator[RunningGateway]:
    """Run the gateway with these routes until the block ends."""
    port, clock = free_port(), SystemClock()
    options = GatewayOptions(
        port=port,
        access_log=directory / "access.log",
        egress_log=directory / "egress.log",
        files_socket=directory / "files.sock",
    )
    paths = EnvoyPaths(directory=directory / "envoy", sockets=directory)
    rejections: list[Rejection] = []
    gateway = Gateway(
        socket_path=paths.xds_socket,
        clock=clock,
        callbacks=GatewayCallbacks(
            on_wake=lambda _: None, on_load=lambda _: None, on_rejected=rejections.append
        ),
        options=options,
    )
    envoy = Envoy(paths=paths, options=EnvoyOptions(concurrency=workers, drain_s=1), clock=clock)
    await gateway.start()
    try:
        gateway.publish_all(routes, (), trust)
        envoy.ensure_running()
        await envoy.wait_ready(START_S)
        await gateway.wait_applied(START_S)
        assert not rejections, rejections
        assert envoy.pid is not None
        yield RunningGateway(port=port, pid=envoy.pid, access_log=options.access_log)
    finally:
        await envoy.stop()
        await gateway.close()


def make_key(directory: Path) -> tuple[KeyTrust, str, str]:
    """Return what the gateway trusts, and a key of the bench's project and its id.

    Made as a platform does, in a store that stays beside.
    """
    store = open_store(directory / STORE)
    try:
        clock = SystemClock()
        key = load_signing_key(directory / "signing.key")
        issuer = TokenIssuer(key, store, clock, random_id)
        token, text = issuer.mint("bench", project=PROJECT, scope=Scope.INFERENCE)
        return KeyTrust(public_jwk=issuer.public_jwk(), issuer=issuer.issuer), text, token.id
    finally:
        store.close()
