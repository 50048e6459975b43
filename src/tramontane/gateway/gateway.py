"""The gateway as the rest of the product sees it: routes in, demand and load out.

``reconcile`` publishes routes; ``processes`` starts and closes it. All calls happen on one event
loop. Publishing is cheap and never waits for Envoy; ``wait_applied`` does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from tramontane.base.clock import Clock
from tramontane.domain.load import UpstreamLoad
from tramontane.domain.route import AliasRoute, EgressBounds, EgressRoute, KeyTrust, ServiceRoute
from tramontane.gateway.catalogue import Catalogue
from tramontane.gateway.descriptors import Schema
from tramontane.gateway.load import LoadServer
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.resources import Resources
from tramontane.gateway.server import AdsServer, Rejection

STOP_S = 1.0
"""For streams to end, which they do at once; after that gRPC cuts them off."""


@dataclass(frozen=True, kw_only=True)
class GatewayCallbacks:
    """What the gateway tells: called on the event loop, must return quickly, must not raise."""

    on_wake: Callable[[str], None]
    """Requests are held for this sleeping upstream (``Upstream.name``); may be repeated."""
    on_load: Callable[[UpstreamLoad], None]
    on_rejected: Callable[[Rejection], None]


class Gateway:
    """Steers every Envoy that connects to ``socket_path``."""

    def __init__(
        self,
        *,
        socket_path: Path,
        clock: Clock,
        callbacks: GatewayCallbacks,
        options: GatewayOptions,
    ) -> None:
        self._socket_path = socket_path
        schema = Schema()
        catalogue = Catalogue()
        self._resources = Resources(
            schema=schema,
            catalogue=catalogue,
            options=options,
            on_wake=callbacks.on_wake,
            on_rejected=callbacks.on_rejected,
        )
        self._ads = AdsServer(schema=schema, catalogue=catalogue, listener=self._resources)
        self._load = LoadServer(
            schema=schema,
            clock=clock,
            interval_s=options.load_interval_s,
            on_load=callbacks.on_load,
        )
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen on the socket. Envoys may connect, but get nothing before ``publish_all``."""
        self._socket_path.unlink(missing_ok=True)
        server = grpc.aio.server(
            handlers=[self._ads.handler(), self._load.handler()],
            options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
        )
        server.add_insecure_port(f"unix:{self._socket_path}")
        await server.start()
        self._socket_path.chmod(0o600)
        self._server = server

    async def close(self) -> None:
        """Stop serving xDS. Envoy keeps serving what it has, and reconnects when we are back."""
        if self._server is not None:
            self._ads.close()
            self._load.close()
            await self._server.stop(grace=STOP_S)
            self._server = None

    def publish_all(
        self,
        routes: Iterable[ServiceRoute],
        egress: Iterable[EgressRoute],
        trust: KeyTrust,
        aliases: Iterable[AliasRoute] = (),
    ) -> None:
        """Replace the complete state. Nothing is served to Envoy before the first call.

        Until then a connected Envoy keeps what it has: a control plane that has just started must
        not take away what it has not yet read from its store.
        """
        self._resources.replace(routes, egress, trust, aliases)
        self._ads.complete.set()

    def publish_service(self, route: ServiceRoute) -> None:
        """Add or change one service."""
        self._resources.put_service(route)

    def remove_service(self, project: str, service: str) -> None:
        """Forget one service; its host name answers 404. Silence if unknown."""
        self._resources.remove_service(project, service)

    def publish_alias(self, route: AliasRoute) -> None:
        """Add or change one alias."""
        self._resources.put_alias(route)

    def remove_alias(self, project: str, alias: str) -> None:
        """Forget one alias: nobody finds a model by that name. Silence if unknown."""
        self._resources.remove_alias(project, alias)

    def publish_egress(self, route: EgressRoute) -> None:
        """Open or change the way out of one service."""
        self._resources.put_egress(route)

    def remove_egress(self, service_id: str) -> None:
        """Close the way out of one service. Silence if unknown."""
        self._resources.remove_egress(service_id)

    def publish_bounds(self, bounds: EgressBounds) -> None:
        """Change how far any way out may lead; nothing of this machine's own before the first."""
        self._resources.put_bounds(bounds)

    def publish_trust(self, trust: KeyTrust) -> None:
        """Change which API keys are good."""
        self._resources.put_trust(trust)

    def is_connected(self) -> bool:
        """Return whether an Envoy is connected and has asked for its routes."""
        return self._ads.is_connected()

    async def wait_applied(self, timeout_s: float) -> None:
        """Return once Envoy has answered to everything published so far; else ``TimeoutError``.

        What Envoy refused counts as answered: it was reported to ``on_rejected``.
        """
        await self._ads.wait_applied(timeout_s)
