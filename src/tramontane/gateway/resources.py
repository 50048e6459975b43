"""Keeps the catalogue in step with our routes, touching only what a change touches.

``gateway.gateway`` calls it. Translation itself is in the pure modules beside this one; here is
what changes when, in which order, and what becomes of requests that are held meanwhile.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tramontane.domain.route import EgressRoute, KeyTrust, Refusal, ServiceRoute, Upstream
from tramontane.gateway import catalogue as types
from tramontane.gateway.catalogue import Catalogue
from tramontane.gateway.clusters import make_cluster, make_endpoints, make_failed_cluster
from tramontane.gateway.descriptors import Json, Schema
from tramontane.gateway.egress import (
    is_egress,
    make_egress_clusters,
    make_egress_listener,
    make_egress_routes,
    route_name,
)
from tramontane.gateway.inference import make_inference_host
from tramontane.gateway.keys import make_key_filters
from tramontane.gateway.listeners import SERVICES, make_service_listener
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.services import make_service_host

Key = tuple[str, str]
"""Project and service."""

ROUTES_HEAD: Json = {
    "name": SERVICES,
    # Routes may name clusters that do not exist yet: that is what asleep means.
    "validate_clusters": False,
    "request_headers_to_remove": ["x-envoy-internal", "x-envoy-external-address"],
    "max_direct_response_body_size_bytes": 4 * 1024 * 1024,
}


@dataclass
class _Service:
    route: ServiceRoute
    host: bytes


class Resources:
    """The product's routes on one side, Envoy's resources on the other."""

    def __init__(
        self,
        *,
        schema: Schema,
        catalogue: Catalogue,
        options: GatewayOptions,
        on_wake: Callable[[str], None],
    ) -> None:
        self._schema = schema
        self._catalogue = catalogue
        self._options = options
        self._on_wake = on_wake
        self._services: dict[Key, _Service] = {}
        self._egress: dict[str, EgressRoute] = {}
        self._sleeping: dict[str, Key] = {}
        """Upstream names that routes use and that have no endpoints yet."""
        self._wanted: set[str] = set()
        """Names among them that Envoy has asked for: requests are held there."""
        self._aliases: dict[Key, set[str]] = {}
        """Wanted names that a service has moved on from: they follow its present target."""
        self._inference: bytes | None = None
        self._put(types.LISTENER, make_service_listener(options))

    def replace(
        self, routes: Iterable[ServiceRoute], egress: Iterable[EgressRoute], trust: KeyTrust
    ) -> None:
        """Make the state exactly this."""
        services = {(route.project, route.service): route for route in routes}
        ways_out = {route.service_id: route for route in egress}
        self.put_trust(trust)
        for key in self._services.keys() - services.keys():
            self.remove_service(*key)
        for service_id in self._egress.keys() - ways_out.keys():
            self.remove_egress(service_id)
        for route in services.values():
            self.put_service(route)
        for way_out in ways_out.values():
            self.put_egress(way_out)
        self._put_routes()

    def want(self, name: str) -> bool:
        """Envoy asks for an upstream it does not have. Return whether one may come."""
        key = self._sleeping.get(name)
        if key is None:
            return any(name in names for names in self._aliases.values())
        self._wanted.add(name)
        self._on_wake(name)
        return True

    def put_service(self, route: ServiceRoute) -> None:
        """Add or change one service."""
        key = (route.project, route.service)
        before = self._services.get(key)
        if before is not None and before.route == route:
            return
        host = self._encode_host(make_service_host(route, self._options.domain))
        self._services[key] = _Service(route=route, host=host)
        self._put_upstream(route.target)
        self._note_sleeping(key, before.route.target if before else None, route.target)
        if before is None or before.host != host:
            self._put_routes()
        if route.model is not None or (before is not None and before.route.model is not None):
            self._change_inference(before.route if before else None, route)
        # Last, so that it is removed only after routes have left it.
        self._leave(key, before.route.target if before else None, route.target)

    def remove_service(self, project: str, service: str) -> None:
        """Forget one service."""
        key = (project, service)
        before = self._services.pop(key, None)
        if before is None:
            return
        if before.route.model is not None:
            self._inference = None
        gone = Refusal(status=404, code="no_such_service", message="the service was deleted")
        self._note_sleeping(key, before.route.target, gone)
        self._put_routes()
        self._leave(key, before.route.target, gone)
        self._drop_aliases(key)

    def put_egress(self, route: EgressRoute) -> None:
        """Open or change the way out of one service."""
        if self._egress.get(route.service_id) == route:
            return
        self._egress[route.service_id] = route
        self._put_egress_clusters()
        self._put(types.ROUTES, make_egress_routes(route))
        self._put(types.LISTENER, make_egress_listener(route, self._options))

    def remove_egress(self, service_id: str) -> None:
        """Close the way out of one service."""
        if self._egress.pop(service_id, None) is None:
            return
        self._catalogue.remove(types.LISTENER, route_name(service_id))
        self._catalogue.remove(types.ROUTES, route_name(service_id))
        self._put_egress_clusters()

    def put_trust(self, trust: KeyTrust) -> None:
        """Change which API keys are good."""
        for body in make_key_filters(trust).values():
            self._put(types.EXTENSION, body)

    def make_routes(self) -> bytes:
        """Return the whole route configuration, put together from its encoded parts.

        Protobuf allows it: the parts of one message, one after the other, are the message.
        """
        if self._inference is None:
            models = [s.route for _, s in sorted(self._services.items()) if s.route.model]
            self._inference = self._encode_host(make_inference_host(models))
        head = self._schema.encode("envoy.config.route.v3.RouteConfiguration", ROUTES_HEAD)
        hosts = (service.host for _, service in sorted(self._services.items()))
        return b"".join((head, *hosts, self._inference))

    def _put_routes(self) -> None:
        self._catalogue.put(types.ROUTES, SERVICES, self.make_routes)

    def _change_inference(self, before: ServiceRoute | None, after: ServiceRoute) -> None:
        self._inference = None
        self._put_routes()

    def _put_upstream(self, target: Upstream | Refusal) -> None:
        if isinstance(target, Upstream) and target.endpoints is not None:
            self._put(types.ENDPOINTS, make_endpoints(target.name, target.endpoints))
            self._put(types.CLUSTER, make_cluster(target.name))

    def _note_sleeping(
        self, key: Key, before: Upstream | Refusal | None, after: Upstream | Refusal
    ) -> None:
        if isinstance(before, Upstream) and self._sleeping.pop(before.name, None) is not None:
            moved_on = not isinstance(after, Upstream) or after.name != before.name
            if before.name in self._wanted and moved_on:
                self._aliases.setdefault(key, set()).add(before.name)
        if isinstance(after, Upstream) and after.endpoints is None:
            self._sleeping[after.name] = key
        self._follow(key, after)

    def _follow(self, key: Key, target: Upstream | Refusal) -> None:
        """Release requests held under names the service had before, or keep them held."""
        for name in self._aliases.get(key, ()):
            if isinstance(target, Refusal):
                held = Upstream(name=name, endpoints=None)
                self._put(types.CLUSTER, make_failed_cluster(held, target.code, target.message))
            elif target.endpoints is None:
                self._wanted.add(target.name)
                self._on_wake(target.name)
            else:
                self._put(types.CLUSTER, make_cluster(name, endpoints_of=target.name))

    def _leave(
        self, key: Key, before: Upstream | Refusal | None, after: Upstream | Refusal
    ) -> None:
        """Remove what the service no longer uses; the server waits until routes have left it."""
        if not isinstance(before, Upstream):
            return
        if isinstance(after, Upstream) and after.name == before.name:
            return
        self._wanted.discard(before.name)
        if before.endpoints is None:
            return
        self._drop_aliases(key)
        self._catalogue.remove(types.CLUSTER, before.name)
        self._catalogue.remove(types.ENDPOINTS, before.name)

    def _drop_aliases(self, key: Key) -> None:
        for name in self._aliases.pop(key, ()):
            self._catalogue.remove(types.CLUSTER, name)

    def _put_egress_clusters(self) -> None:
        rules = [rule for route in self._egress.values() for rule in route.rules]
        clusters = make_egress_clusters(rules, self._options) if self._egress else []
        names = {str(cluster["name"]) for cluster in clusters}
        for cluster in clusters:
            self._put(types.CLUSTER, cluster)
        for name in self._catalogue.names(types.CLUSTER):
            if is_egress(name) and name not in names:
                self._catalogue.remove(types.CLUSTER, name)

    def _put(self, type_url: str, body: Json) -> None:
        name = str(body.get("name") or body["cluster_name"])
        message = type_url.removeprefix("type.googleapis.com/")
        self._catalogue.put(type_url, name, self._schema.encode(message, body))

    def _encode_host(self, host: Json) -> bytes:
        """Return one virtual host as a fragment of the route configuration."""
        return self._schema.encode(
            "envoy.config.route.v3.RouteConfiguration", {"virtual_hosts": [host]}
        )
