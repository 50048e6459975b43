"""Keeps the catalogue in step with our routes, touching only what a change touches.

``gateway.gateway`` calls it. Translation itself is in the pure modules beside this one; here is
what changes when, in which order, and what becomes of requests that are held meanwhile.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from tramontane.domain.route import (
    AliasRoute,
    EgressBounds,
    EgressRoute,
    KeyTrust,
    Refusal,
    ServiceRoute,
    Upstream,
)
from tramontane.gateway import catalogue as types
from tramontane.gateway.aliases import (
    Chain,
    find_chains,
    make_chain_cluster,
    make_chain_host,
    make_chain_listener,
)
from tramontane.gateway.bindings import (
    Bound,
    binding_name,
    choose_bound,
    make_binding_listener,
    make_binding_routes,
)
from tramontane.gateway.catalogue import Catalogue
from tramontane.gateway.clusters import (
    make_cluster,
    make_cluster_name,
    make_endpoints,
    make_failed_cluster,
    read_upstream_name,
)
from tramontane.gateway.descriptors import Json, Schema, join_field
from tramontane.gateway.egress import (
    is_egress,
    make_egress_clusters,
    make_egress_listener,
    make_egress_routes,
    route_name,
)
from tramontane.gateway.files import make_file_cluster
from tramontane.gateway.inference import (
    INFERENCE_HEAD,
    make_alias_routes,
    make_last_routes,
    make_listing,
    make_model_routes,
)
from tramontane.gateway.keys import KEY_FILTERS, make_key_filters
from tramontane.gateway.listeners import (
    BUFFER_BYTES,
    RESERVED_HEADERS,
    ROUTES,
    SERVICES,
    make_service_listener,
)
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.parts import Parts
from tramontane.gateway.server import Answer, Rejection
from tramontane.gateway.services import make_service_host

Key = tuple[str, str]
"""Project, and service or alias."""

INFERENCE: Key = ("~", "inference")
"""Where the parts of the routes hold the host for ``/v1``."""

CHAIN = "~chain"
"""First part of the keys under which they hold the hosts of chains."""

HOST_MESSAGE = "envoy.config.route.v3.VirtualHost"
HOSTS_FIELD = 2
"""Number of ``virtual_hosts`` in a route configuration."""

CLUSTER_MESSAGE = types.CLUSTER.removeprefix("type.googleapis.com/")

ROUTES_HEAD: Json = {
    "name": SERVICES,
    # Routes may name clusters that do not exist yet: that is what asleep means.
    "validate_clusters": False,
    "request_headers_to_remove": RESERVED_HEADERS,
    "max_direct_response_body_size_bytes": 4 * 1024 * 1024,
}


@dataclass
class _Service:
    asked: ServiceRoute
    """As published."""
    route: ServiceRoute
    """With the name of Envoy's cluster in place of the upstream's."""
    upstream: str | None
    """The last upstream it had, also while it is refused."""


@dataclass
class _Alias:
    route: AliasRoute
    chains: frozenset[Chain]
    former: frozenset[Chain] = frozenset()
    """Those before the last change: a request that was given one may still have to go on in it."""


class Resources:
    """The product's routes on one side, Envoy's resources on the other; an ``AdsListener``."""

    def __init__(
        self,
        *,
        schema: Schema,
        catalogue: Catalogue,
        options: GatewayOptions,
        on_wake: Callable[[str], None],
        on_rejected: Callable[[Rejection], None],
    ) -> None:
        self._schema = schema
        self._catalogue = catalogue
        self._options = options
        self._on_wake = on_wake
        self._on_rejected = on_rejected
        self._services: dict[Key, _Service] = {}
        self._hosts: Parts[Key] = Parts()
        self._egress: dict[str, EgressRoute] = {}
        self._bounds = EgressBounds()
        self._bound: dict[str, list[Bound]] = {}
        """By service id: what it is bound to, as last told to Envoy."""
        self._trust: KeyTrust | None = None
        self._sleeping: dict[str, Key] = {}
        """Clusters that routes name and that do not exist yet."""
        self._wanted: set[str] = set()
        """Those among them that Envoy has asked for: requests are held there."""
        self._turns: dict[str, int] = {}
        """By upstream: how often a cluster's name had to be given up."""
        self._spent: dict[str, set[str]] = {}
        """By upstream: clusters that Envoy was told of, so that it will not ask for them again."""
        self._former: dict[Key, set[str]] = {}
        """Wanted clusters that a service has moved on from: they follow its present target."""
        self._aliases: dict[Key, _Alias] = {}
        self._chains: dict[Key, set[Chain]] = {}
        """By service: the chains it takes part in."""
        self._inference_head = schema.encode(HOST_MESSAGE, INFERENCE_HEAD)
        self._inference: dict[Hashable, bytes] = {}
        """Encoded routes of the host for ``/v1``, by what they are made from."""
        self._cluster_class = schema.message_class(CLUSTER_MESSAGE)
        self._cluster_form = schema.encode(CLUSTER_MESSAGE, make_cluster("name"))
        self._head = schema.encode("envoy.config.route.v3.RouteConfiguration", ROUTES_HEAD)
        self._put(types.CLUSTER, make_file_cluster(str(options.files_socket)))
        self._put(types.CLUSTER, make_chain_cluster())
        self._put(types.LISTENER, make_chain_listener(BUFFER_BYTES, ROUTES))
        self._put(types.LISTENER, make_service_listener(options))

    def replace(
        self,
        routes: Iterable[ServiceRoute],
        egress: Iterable[EgressRoute],
        trust: KeyTrust,
        aliases: Iterable[AliasRoute] = (),
    ) -> None:
        """Make the state exactly this."""
        names = {(route.project, route.alias): route for route in aliases}
        services = {(route.project, route.service): route for route in routes}
        ways_out = {route.service_id: route for route in egress}
        self.put_trust(trust)
        for key in self._services.keys() - services.keys():
            self.remove_service(*key)
        for service_id in self._egress.keys() - ways_out.keys():
            self.remove_egress(service_id)
        for route in services.values():
            self._put_service(route)
        for way_out in ways_out.values():
            self.put_egress(way_out)
        for key in self._aliases.keys() - names.keys():
            del self._aliases[key]
        for route in names.values():
            self._note_alias(route)
        self._put_chains(self._follow_chains())
        self._put_inference()

    def on_connected(self, clusters: Collection[str]) -> None:
        """Give up the names of sleeping clusters that Envoy still has from an earlier state."""
        for cluster in clusters:
            self._spend(cluster)
            key = self._sleeping.get(cluster)
            if key is not None:
                self._put_service(self._services[key].asked, again=True)

    def on_wanted(self, name: str) -> bool:
        """Wake the service behind a cluster that Envoy asks for and that does not exist."""
        key = self._sleeping.get(name)
        if key is None:
            return any(name in names for names in self._former.values())
        self._wanted.add(name)
        self._on_wake(read_upstream_name(name))
        return True

    def on_answer(self, answer: Answer) -> None:
        """Follow what Envoy takes and refuses."""
        if answer.type_url == types.ROUTES and SERVICES in answer.names:
            self._take_routes_answer(answer)
        elif answer.error is not None:
            self._on_rejected(
                Rejection(type_url=answer.type_url, names=answer.names, message=answer.error)
            )

    def put_service(self, route: ServiceRoute) -> None:
        """Add or change one service."""
        if self._put_service(route):
            self._put_inference()

    def remove_service(self, project: str, service: str) -> None:
        """Forget one service."""
        key = (project, service)
        before = self._services.pop(key, None)
        if before is None:
            return
        gone = Refusal(status=404, code="no_such_service", message="the service was deleted")
        self._note_sleeping(key, before.route.target, gone)
        self._hosts.remove(key)
        self._put_chains(self._chains.get(key, ()))
        self._put_routes()
        if before.route.model is not None:
            self._put_inference()
        self._leave(key, before.route.target, gone)
        self._drop_former(key)
        self._forget(before.upstream)

    def put_alias(self, route: AliasRoute) -> None:
        """Add or change one alias."""
        self._note_alias(route)
        self._put_chains(self._follow_chains())
        self._put_inference()

    def remove_alias(self, project: str, alias: str) -> None:
        """Forget one alias; silence if unknown."""
        self._aliases.pop((project, alias), None)
        self._follow_chains()
        self._put_inference()

    def put_egress(self, route: EgressRoute) -> None:
        """Open or change the way out of one service."""
        before = self._egress.get(route.service_id)
        if before == route:
            return
        self._egress[route.service_id] = route
        self._put_egress_clusters()
        self._put_way_out(route)
        if route.models:
            self._bound.pop(route.service_id, None)
            self._put_bound_models(route)
            self._put(types.LISTENER, make_binding_listener(route, self._options))
            self._put_key_filters()
        elif before is not None and before.models:
            self._remove_binding(route.service_id)

    def remove_egress(self, service_id: str) -> None:
        """Close the way out of one service."""
        before = self._egress.pop(service_id, None)
        if before is None:
            return
        if before.models:
            self._remove_binding(service_id)
        self._catalogue.remove(types.LISTENER, route_name(service_id))
        self._catalogue.remove(types.ROUTES, route_name(service_id))
        self._put_egress_clusters()

    def put_bounds(self, bounds: EgressBounds) -> None:
        """Change how far any way out may lead."""
        if self._bounds == bounds:
            return
        self._bounds = bounds
        self._put_egress_clusters()
        for route in self._egress.values():
            self._put_way_out(route)

    def put_trust(self, trust: KeyTrust) -> None:
        """Change which API keys are good."""
        self._trust = trust
        self._put_key_filters()

    def make_routes(self) -> bytes:
        """Return the whole route configuration, put together from its encoded parts."""
        return self._head + self._hosts.join()

    def _take_routes_answer(self, answer: Answer) -> None:
        if answer.error is None:
            if self._hosts.accept():
                self._put_routes()
            return
        fault = self._hosts.reject()
        self._put_routes()
        if fault is not None:
            self._on_rejected(
                Rejection(
                    type_url=answer.type_url,
                    names=("/".join(part for part in fault if part),),
                    message=answer.error,
                )
            )

    def _put_service(self, asked: ServiceRoute, *, again: bool = False) -> bool:
        """Return whether inference is touched by the change."""
        key = (asked.project, asked.service)
        before = self._services.get(key)
        if before is not None and before.asked == asked and not again:
            return False
        route = self._name_cluster(asked)
        upstream = before.upstream if before else None
        if isinstance(asked.target, Upstream) and asked.target.name != upstream:
            self._forget(upstream)
            upstream = asked.target.name
        self._services[key] = _Service(asked=asked, route=route, upstream=upstream)
        self._put_upstream(route.target)
        self._note_sleeping(key, before.route.target if before else None, route.target)
        changed = before is None or _without_endpoints(before.route) != _without_endpoints(route)
        if changed:
            host = self._encode_host(make_service_host(route, self._options.domain))
            if self._hosts.get(key) != host:
                self._hosts.put(key, host)
                self._put_routes()
            self._put_chains(self._chains.get(key, ()))
        # Last, so that it is removed only after routes have left it.
        self._leave(key, before.route.target if before else None, route.target)
        models = [each.model for each in (asked, before and before.asked) if each]
        inference = changed and any(model is not None for model in models)
        if inference and again:
            self._put_inference()
        return inference

    def _name_cluster(self, asked: ServiceRoute) -> ServiceRoute:
        """Return the route with the name under which Envoy can (still) ask for its upstream."""
        if isinstance(asked.target, Refusal):
            return asked
        upstream = asked.target.name
        name = make_cluster_name(upstream, self._turns.get(upstream, 0))
        if asked.target.endpoints is None and name in self._spent.get(upstream, ()):
            self._turns[upstream] = self._turns.get(upstream, 0) + 1
            name = make_cluster_name(upstream, self._turns[upstream])
        return replace(asked, target=replace(asked.target, name=name))

    def _spend(self, cluster: str) -> None:
        self._spent.setdefault(read_upstream_name(cluster), set()).add(cluster)

    def _forget(self, upstream: str | None) -> None:
        """Keep no account of an upstream whose name does not come back."""
        if upstream is not None:
            self._spent.pop(upstream, None)
            self._turns.pop(upstream, None)

    def _put_routes(self) -> None:
        self._catalogue.put(types.ROUTES, SERVICES, self.make_routes)

    def _note_alias(self, route: AliasRoute) -> None:
        key = (route.project, route.alias)
        before = self._aliases.get(key)
        if before is None or before.route != route:
            former = before.chains if before else frozenset[Chain]()
            self._aliases[key] = _Alias(route=route, chains=find_chains(route), former=former)

    def _follow_chains(self) -> set[Chain]:
        """Drop the hosts of chains that no alias uses any more; return chains without a host."""
        wanted = {chain for each in self._aliases.values() for chain in each.chains | each.former}
        present = {chain for chains in self._chains.values() for chain in chains}
        for chain in present - wanted:
            self._hosts.remove((CHAIN, chain.host))
        self._chains = defaultdict(set)
        for chain in wanted:
            for service in chain.services:
                self._chains[chain.project, service].add(chain)
        return wanted - present

    def _put_chains(self, chains: Iterable[Chain]) -> None:
        for chain in sorted(chains, key=lambda each: each.host):
            keys = {name: (chain.project, name) for name in chain.services}
            models = {
                name: self._services[key].route
                for name, key in keys.items()
                if key in self._services and self._services[key].route.model is not None
            }
            host = self._encode_host(make_chain_host(chain, models))
            if self._hosts.get((CHAIN, chain.host)) != host:
                self._hosts.put((CHAIN, chain.host), host)
                self._put_routes()

    def _put_inference(self) -> None:
        host = self._encode_inference()
        if self._hosts.get(INFERENCE) != host:
            self._hosts.put(INFERENCE, host)
            self._put_routes()
        for route in self._egress.values():
            if route.models:
                self._put_bound_models(route)

    def _models(self) -> list[ServiceRoute]:
        return [each.route for _, each in sorted(self._services.items()) if each.route.model]

    def _put_bound_models(self, route: EgressRoute) -> None:
        """Tell what answers for a service's models, if it is not what was told before."""
        models = [_without_endpoints(each) for each in self._models()]
        aliases = [alias.route for _, alias in sorted(self._aliases.items())]
        bound = choose_bound(route, [*models, *aliases])
        if self._bound.get(route.service_id) != bound:
            self._bound[route.service_id] = bound
            self._put(types.ROUTES, make_binding_routes(route, bound))

    def _remove_binding(self, service_id: str) -> None:
        del self._bound[service_id]
        self._catalogue.remove(types.LISTENER, binding_name(service_id))
        self._catalogue.remove(types.ROUTES, binding_name(service_id))
        self._put_key_filters()

    def _put_key_filters(self) -> None:
        for name in KEY_FILTERS:
            # Made when it is sent: many services may come to be bound at once.
            self._catalogue.put(types.EXTENSION, name, partial(self._encode_key_filter, name))

    def _encode_key_filter(self, name: str) -> bytes:
        assert self._trust is not None, "nothing is sent before the first state is complete"
        bound = [each.service_id for each in self._egress.values() if each.models]
        body = make_key_filters(self._trust, bound)[name]
        return self._schema.encode("envoy.config.core.v3.TypedExtensionConfig", body)

    def _encode_inference(self) -> bytes:
        """Return the host for ``/v1``, of which only what is new is made anew."""
        encoded: dict[Hashable, bytes] = {}
        for made_from, make in self._list_inference():
            before = self._inference.get(made_from)
            encoded[made_from] = self._encode_routes(make()) if before is None else before
        self._inference = encoded
        return join_field(HOSTS_FIELD, (self._inference_head, *encoded.values()))

    def _list_inference(self) -> Iterator[tuple[Hashable, Callable[[], list[Json]]]]:
        """Yield the groups of its routes, in order: what each is made from, and how."""
        names: dict[str, list[str]] = {}
        for (project, _), service in sorted(self._services.items()):
            route = _without_endpoints(service.route)
            if route.model is not None:
                names.setdefault(project, []).append(route.model)
                yield route, partial(make_model_routes, route)
        for (project, _), alias in sorted(self._aliases.items()):
            names.setdefault(project, []).append(alias.route.alias)
            yield alias.route, partial(make_alias_routes, alias.route)
        for project, listed in names.items():
            yield (project, *listed), partial(make_listing, project, listed)
        yield None, make_last_routes

    def _put_upstream(self, target: Upstream | Refusal) -> None:
        if isinstance(target, Upstream) and target.endpoints is not None:
            self._put(types.ENDPOINTS, make_endpoints(target))
            self._put_cluster(target.name, self._encode_cluster(target.name))

    def _put_cluster(self, name: str, body: bytes) -> None:
        self._spend(name)
        self._catalogue.put(types.CLUSTER, name, body)

    def _encode_cluster(self, name: str, *, endpoints_of: str | None = None) -> bytes:
        """Return ``make_cluster(…)`` encoded. A wake waits for it, and only names differ."""
        cluster = self._cluster_class.FromString(self._cluster_form)
        cluster.name = name
        cluster.eds_cluster_config.service_name = endpoints_of or name
        return cluster.SerializeToString(deterministic=True)

    def _note_sleeping(
        self, key: Key, before: Upstream | Refusal | None, after: Upstream | Refusal
    ) -> None:
        if isinstance(before, Upstream) and self._sleeping.pop(before.name, None) is not None:
            moved_on = not isinstance(after, Upstream) or after.name != before.name
            if before.name in self._wanted and moved_on:
                self._former.setdefault(key, set()).add(before.name)
        if isinstance(after, Upstream) and after.endpoints is None:
            self._sleeping[after.name] = key
        self._follow(key, after)

    def _follow(self, key: Key, target: Upstream | Refusal) -> None:
        """Release requests held under names the service had before, or keep them held."""
        for name in self._former.get(key, ()):
            if isinstance(target, Refusal):
                failed = make_failed_cluster(name, target.code, target.message)
                self._put_cluster(name, self._schema.encode(CLUSTER_MESSAGE, failed))
            elif target.endpoints is not None:
                self._put_cluster(name, self._encode_cluster(name, endpoints_of=target.name))
            elif self._catalogue.get(types.CLUSTER, name) is None:
                self._wanted.add(target.name)
                self._on_wake(read_upstream_name(target.name))

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
        self._drop_former(key)
        self._catalogue.remove(types.CLUSTER, before.name)
        self._catalogue.remove(types.ENDPOINTS, before.name)

    def _drop_former(self, key: Key) -> None:
        for name in self._former.pop(key, ()):
            self._catalogue.remove(types.CLUSTER, name)

    def _put_way_out(self, route: EgressRoute) -> None:
        self._put(types.ROUTES, make_egress_routes(route, self._bounds))
        self._put(types.LISTENER, make_egress_listener(route, self._options, self._bounds))

    def _put_egress_clusters(self) -> None:
        rules = [rule for route in self._egress.values() for rule in route.rules]
        clusters = make_egress_clusters(rules, self._options, self._bounds) if self._egress else []
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

    def _encode_routes(self, routes: list[Json]) -> bytes:
        return self._schema.encode(HOST_MESSAGE, {"routes": routes})

    def _encode_host(self, host: Json) -> bytes:
        """Return one virtual host as a fragment of the route configuration."""
        return self._schema.encode(
            "envoy.config.route.v3.RouteConfiguration", {"virtual_hosts": [host]}
        )


def _without_endpoints(route: ServiceRoute) -> ServiceRoute:
    """Return the part of a route that its virtual host is made from: a wake leaves it as it is."""
    if isinstance(route.target, Refusal):
        return route
    return replace(route, target=replace(route.target, endpoints=None, draining=()))
