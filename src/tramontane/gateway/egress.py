"""The way out of a sandbox: one forward proxy per service on a Unix socket. Pure.

It takes CONNECT and absolute-form requests, lets through what the service's rules name as far as
``gateway.reach`` lets them, and says how to allow the rest. Rules are matched by name; the
addresses a name resolves to are filtered when they are resolved, so that what was checked is what
is dialled, however often a name changes its mind. Called by ``gateway.resources``.
"""

from collections.abc import Iterable

from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds, EgressRoute
from tramontane.gateway.access_logs import make_access_log
from tramontane.gateway.clusters import make_circuit_breakers
from tramontane.gateway.descriptors import Json, named, typed
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.reach import Denial, Way, judge, make_denied_ranges
from tramontane.gateway.replies import make_condition, make_passage
from tramontane.gateway.services import error

CLUSTER = "egress"
"""First word of the name of each cluster below."""

NAMES = (Way.PUBLIC_NAME, Way.PRIVATE_NAME)
"""Each has a cluster, a resolver's cache and a filter of its own: they differ in what is denied."""

UNRESOLVED = (
    (
        "address_denied",
        "egress_private",
        "%REQ(:AUTHORITY)% leads to an address of this machine or of a private network; name the "
        "address itself under egress: in tramontane.yaml. A name leads into a private network if "
        "whoever operates the platform allows it with: tram up --allow-egress-to "
        "%REQ(:AUTHORITY)%; it never leads into this machine",
    ),
    ("dns_resolution_failure", "egress_unresolved", "%REQ(:AUTHORITY)% has no address"),
)
"""What Envoy says of names it could not or would not resolve; the first that holds is used."""

LOG_FIELDS: Json = {
    "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "code": "%RESPONSE_CODE%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "verdict": "%METADATA(ROUTE:tramontane:verdict)%",
    "why": "%METADATA(ROUTE:tramontane:why)%",
    "address": "%UPSTREAM_REMOTE_ADDRESS%",
    "duration_ms": "%DURATION%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
}


def route_name(service_id: str) -> str:
    """Return the name of the listener and of the route configuration of a service's way out."""
    return f"egress/{service_id}"


def make_egress_listener(route: EgressRoute, options: GatewayOptions, bounds: EgressBounds) -> Json:
    """Return the proxy's listener; rules are apart, so that a new rule drains no connection."""
    fields = LOG_FIELDS | {
        "service_id": route.service_id,
        "project": route.project,
        "service": route.service,
    }
    manager = named(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="egress",
        rds={
            "route_config_name": route_name(route.service_id),
            "config_source": {"ads": {}, "resource_api_version": "V3"},
        },
        http_filters=[
            *(_make_name_filter(way, options, bounds) for way in NAMES),
            named(
                "envoy.filters.http.router",
                "envoy.extensions.filters.http.router.v3.Router",
                suppress_envoy_headers=True,
            ),
        ],
        upgrade_configs=[{"upgrade_type": "CONNECT"}],
        # Tunnels are still asked for in HTTP/1.0 by much that is in use, Python 3.11 included.
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "unknown"},
        access_log=[make_access_log(str(options.egress_log), fields)],
        local_reply_config=_make_local_replies(),
        stream_idle_timeout="0s",
        request_timeout="0s",
        request_headers_timeout="30s",
        # What leaves is the instance's own request, with nothing of the platform on it.
        skip_xff_append=True,
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
    )
    return {
        "name": route_name(route.service_id),
        "address": {"pipe": {"path": route.socket, "mode": 0o600}},
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [{"filters": [manager]}],
    }


def make_egress_routes(route: EgressRoute, bounds: EgressBounds) -> Json:
    """Return what the service may reach, and the answer for everything else."""
    return {
        "name": route_name(route.service_id),
        "virtual_hosts": [
            *(_make_named_host(rule, bounds) for rule in sorted(set(route.rules))),
            _make_unnamed_host(route),
        ],
    }


def make_egress_clusters(
    rules: Iterable[EgressRule], options: GatewayOptions, bounds: EgressBounds
) -> list[Json]:
    """Return the clusters for names and one per destination that is written as an address."""
    literals = sorted(rule for rule in set(rules) if judge(rule, bounds) is Way.ADDRESS)
    return [
        *(_make_name_cluster(way, options, bounds) for way in NAMES),
        *(_make_literal_cluster(rule) for rule in literals),
    ]


def is_egress(cluster: str) -> bool:
    """Return whether a cluster is one of these, not an upstream."""
    return cluster.partition("=")[0] == CLUSTER


def _authority(rule: EgressRule) -> str:
    host = rule.host.strip("[]").lower()
    return f"[{host}]:{rule.port}" if ":" in host else f"{host}:{rule.port}"


def _cluster_of(rule: EgressRule, way: Way) -> str:
    return f"{CLUSTER}={_authority(rule) if way is Way.ADDRESS else way}"


def _filter_of(way: Way) -> str:
    return f"tramontane.egress.{way}"


def _make_named_host(rule: EgressRule, bounds: EgressBounds) -> Json:
    authority = _authority(rule)
    way = judge(rule, bounds)
    if isinstance(way, Denial):
        body = error("egress_denied", f"{authority} is not reached from here: {way.why}")
        routes = _make_denied_routes(body, why=way.why)
    else:
        routes = _make_open_routes(rule, way)
    return {
        "name": authority,
        # A plain http:// URL without a port leaves it out of the authority.
        "domains": [authority, *([authority.removesuffix(":80")] if rule.port == 80 else [])],
        "request_headers_to_remove": ["x-forwarded-proto", "x-forwarded-for", "x-request-id"],
        "routes": routes,
    }


def _make_open_routes(rule: EgressRule, way: Way) -> list[Json]:
    action: Json = {"cluster": _cluster_of(rule, way), "timeout": "0s", "idle_timeout": "0s"}
    tunnel: Json = {
        **action,
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
    }
    allowed: Json = {"metadata": {"filter_metadata": {"tramontane": {"verdict": "allowed"}}}}
    if way in NAMES:
        enabled = typed("envoy.config.route.v3.FilterConfig", config={})
        allowed["typed_per_filter_config"] = {_filter_of(way): enabled}
    return [
        {"match": {"connect_matcher": {}}, "route": tunnel, **allowed},
        {"match": {"prefix": "/"}, "route": action, **allowed},
    ]


def _make_unnamed_host(route: EgressRoute) -> Json:
    body = error(
        "egress_denied",
        f"%REQ(:AUTHORITY)% is not among what {route.project}/{route.service} may reach; "
        "to allow it, add it under egress: in tramontane.yaml",
    )
    why = "not under egress: in tramontane.yaml"
    return {"name": "denied", "domains": ["*"], "routes": _make_denied_routes(body, why=why)}


def _make_denied_routes(body: Json, *, why: str) -> list[Json]:
    answer = {
        "direct_response": {"status": 403, "body_format": {"json_format": body}},
        "metadata": {"filter_metadata": {"tramontane": {"verdict": "denied", "why": why}}},
    }
    return [
        {"match": {"connect_matcher": {}}, **answer},
        {"match": {"prefix": "/"}, **answer},
    ]


def _make_local_replies() -> Json:
    return {
        "mappers": [
            # A denial is already what it should be.
            make_passage(),
            *(
                {
                    "filter": make_condition(f'response.code_details.contains("{details}")'),
                    "status_code": 502,
                    "body_format_override": {"json_format": error(code, message)},
                }
                for details, code, message in UNRESOLVED
            ),
        ],
        "body_format": {"json_format": error("egress_failed", "%LOCAL_REPLY_BODY%")},
    }


def _make_name_filter(way: Way, options: GatewayOptions, bounds: EgressBounds) -> Json:
    """Return the filter that resolves names of this kind, for the routes that ask for it."""
    resolving = named(
        _filter_of(way),
        "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=_make_dns_cache(way, options, bounds),
    )
    return {**resolving, "disabled": True}


def _make_name_cluster(way: Way, options: GatewayOptions, bounds: EgressBounds) -> Json:
    return {
        "name": f"{CLUSTER}={way}",
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": make_circuit_breakers(),
        "cluster_type": named(
            "envoy.clusters.dynamic_forward_proxy",
            "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=_make_dns_cache(way, options, bounds),
        ),
    }


def _make_literal_cluster(rule: EgressRule) -> Json:
    name = _cluster_of(rule, Way.ADDRESS)
    address = {"address": rule.host.strip("[]"), "port_value": rule.port}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": make_circuit_breakers(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}
            ],
        },
    }


def _make_dns_cache(way: Way, options: GatewayOptions, bounds: EgressBounds) -> Json:
    denied = make_denied_ranges(way, bounds)
    cache: Json = {
        # Envoy takes no other settings for a name it knows, and the machine's addresses change.
        "name": f"{way}, not {' '.join(bounds.own)}".removesuffix(", not "),
        "dns_lookup_family": "V4_PREFERRED",
        "host_ttl": "300s",
        "max_hosts": 10_000,
        "resolved_address_filter": {"ranges": [_make_range(text) for text in denied]},
    }
    if options.egress_dns_servers:
        servers = [server.rpartition(":") for server in options.egress_dns_servers]
        cache["typed_dns_resolver_config"] = {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": typed(
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                resolvers=[
                    {"socket_address": {"address": host, "port_value": int(port)}}
                    for host, _, port in servers
                ],
            ),
        }
    return cache


def _make_range(text: str) -> Json:
    prefix, _, length = text.partition("/")
    return {"address_prefix": prefix, "prefix_len": int(length)}
