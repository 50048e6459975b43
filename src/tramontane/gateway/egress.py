"""The way out of a sandbox: one forward proxy per service on a Unix socket. Pure.

It takes CONNECT and absolute-form requests, lets through what the service's rules name, and says
how to allow the rest. Rules are matched by name; the addresses a name resolves to are filtered
when they are resolved, so that an allowed name cannot lead back into this machine or its network.
Called by ``gateway.resources``.
"""

from collections.abc import Iterable
from ipaddress import ip_address

from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressRoute
from tramontane.gateway.access_logs import make_access_log
from tramontane.gateway.clusters import make_circuit_breakers
from tramontane.gateway.descriptors import Json, named, typed
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.replies import make_condition, make_passage
from tramontane.gateway.services import error

CLUSTER = "egress"
"""The cluster of every allowed name; its addresses are looked up on demand."""

UNRESOLVED = (
    (
        "address_denied",
        "egress_private",
        "%REQ(:AUTHORITY)% leads to a private address; such are reached only when the rule "
        "under egress: in tramontane.yaml names the address itself",
    ),
    ("dns_resolution_failure", "egress_unresolved", "%REQ(:AUTHORITY)% has no address"),
)
"""What Envoy says of names it could not or would not resolve; the first that holds is used."""

PRIVATE_RANGES = (
    # IANA's special-purpose registries, less what is globally reachable.
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/3",
    "::/128", "::1/128", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64",
    "2001::/23", "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)  # fmt: skip

LOG_FIELDS: Json = {
    "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "code": "%RESPONSE_CODE%",
    "reason": "%RESPONSE_CODE_DETAILS%",
    "verdict": "%METADATA(ROUTE:tramontane:verdict)%",
    "address": "%UPSTREAM_REMOTE_ADDRESS%",
    "duration_ms": "%DURATION%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
}


def route_name(service_id: str) -> str:
    """Return the name of the listener and of the route configuration of a service's way out."""
    return f"egress/{service_id}"


def make_egress_listener(route: EgressRoute, options: GatewayOptions) -> Json:
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
            named(
                "envoy.filters.http.dynamic_forward_proxy",
                "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
                dns_cache_config=_make_dns_cache(options),
            ),
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


def make_egress_routes(route: EgressRoute) -> Json:
    """Return what the service may reach, and the answer for everything else."""
    return {
        "name": route_name(route.service_id),
        "virtual_hosts": [
            *(_make_allowed_host(rule) for rule in sorted(set(route.rules), key=_rule_key)),
            _make_denied_host(route),
        ],
    }


def make_egress_clusters(rules: Iterable[EgressRule], options: GatewayOptions) -> list[Json]:
    """Return the cluster for names and one per destination that is written as an address."""
    literals = sorted({rule for rule in rules if is_literal(rule.host)}, key=_rule_key)
    return [_make_name_cluster(options), *(_make_literal_cluster(rule) for rule in literals)]


def is_egress(cluster: str) -> bool:
    """Return whether a cluster is one of these, not an upstream."""
    return cluster.partition("=")[0] == CLUSTER


def is_literal(host: str) -> bool:
    """Return whether a rule names an address rather than a name."""
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _rule_key(rule: EgressRule) -> tuple[str, int]:
    return (rule.host, rule.port)


def _authority(rule: EgressRule) -> str:
    host = rule.host.strip("[]").lower()
    return f"[{host}]:{rule.port}" if ":" in host else f"{host}:{rule.port}"


def _make_allowed_host(rule: EgressRule) -> Json:
    authority = _authority(rule)
    # A plain http:// URL without a port leaves it out of the authority.
    domains = [authority, *([authority.removesuffix(":80")] if rule.port == 80 else [])]
    action = {
        "cluster": f"{CLUSTER}={authority}" if is_literal(rule.host) else CLUSTER,
        "timeout": "0s",
        "idle_timeout": "0s",
    }
    allowed = {"filter_metadata": {"tramontane": {"verdict": "allowed"}}}
    return {
        "name": authority,
        "domains": domains,
        "request_headers_to_remove": ["x-forwarded-proto", "x-forwarded-for", "x-request-id"],
        "routes": [
            {
                "match": {"connect_matcher": {}},
                "route": {
                    **action,
                    "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                },
                "metadata": allowed,
            },
            {"match": {"prefix": "/"}, "route": action, "metadata": allowed},
        ],
    }


def _make_denied_host(route: EgressRoute) -> Json:
    body = error(
        "egress_denied",
        f"%REQ(:AUTHORITY)% is not among what {route.project}/{route.service} may reach; "
        "to allow it, add it under egress: in tramontane.yaml",
    )
    answer = {
        "direct_response": {"status": 403, "body_format": {"json_format": body}},
        "metadata": {"filter_metadata": {"tramontane": {"verdict": "denied"}}},
    }
    return {
        "name": "denied",
        "domains": ["*"],
        "routes": [
            {"match": {"connect_matcher": {}}, **answer},
            {"match": {"prefix": "/"}, **answer},
        ],
    }


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


def _make_name_cluster(options: GatewayOptions) -> Json:
    return {
        "name": CLUSTER,
        "connect_timeout": "10s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": make_circuit_breakers(),
        "cluster_type": named(
            "envoy.clusters.dynamic_forward_proxy",
            "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=_make_dns_cache(options),
        ),
    }


def _make_literal_cluster(rule: EgressRule) -> Json:
    name = f"{CLUSTER}={_authority(rule)}"
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


def _make_dns_cache(options: GatewayOptions) -> Json:
    cache: Json = {
        "name": "egress",
        "dns_lookup_family": "V4_PREFERRED",
        "host_ttl": "300s",
        "max_hosts": 10_000,
        "resolved_address_filter": {"ranges": [_make_range(text) for text in PRIVATE_RANGES]},
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
