"""The listener where users' requests arrive. Pure; called by ``gateway.resources``.

It changes only when the gateway's own options do: routes, keys and upstreams are all discovered
apart from it, because a changed listener drains its connections.
"""

from collections.abc import Sequence

from tramontane.gateway.access_logs import REQUEST_FIELDS, make_access_log
from tramontane.gateway.bodies import (
    BUFFER_FILTER,
    JSON_FILTER,
    make_buffer_filter,
    make_json_filter,
)
from tramontane.gateway.descriptors import Json, named
from tramontane.gateway.grants import JWT_METADATA, LUA_FILTER, make_listing_filter
from tramontane.gateway.keys import JWT_TYPE, RBAC_TYPE, REVOKED
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.replies import make_local_replies
from tramontane.gateway.services import make_on_demand_filter

ADS: Json = {"ads": {}, "resource_api_version": "V3"}
SERVICES = "services"
"""Name of the listener for users and of its route configuration."""
ROUTES: Json = {"route_config_name": SERVICES, "config_source": ADS}

RESERVED_HEADERS = ("x-envoy-internal", "x-envoy-external-address")
"""What Envoy adds, and no app should get to rely on."""

BUFFER_BYTES = 1024 * 1024
"""How much of a body one connection may hold in memory before the sender is slowed down."""


def make_service_listener(options: GatewayOptions) -> Json:
    """Return the listener for services and models."""
    return {
        "name": SERVICES,
        "address": {"socket_address": {"address": options.address, "port_value": options.port}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        # Streams have no time limit, so the kernel must find the clients that vanished.
        "tcp_keepalive": {
            "keepalive_time": 60,
            "keepalive_interval": 15,
            "keepalive_probes": 4,
        },
        "filter_chains": [
            {
                "filters": [
                    make_http_manager(
                        options,
                        routes=SERVICES,
                        filters=make_http_filters(options),
                        fields=REQUEST_FIELDS,
                    )
                ]
            }
        ],
    }


def make_http_manager(
    options: GatewayOptions, *, routes: str, filters: Sequence[Json], fields: Json
) -> Json:
    """Return the HTTP side of a listener, hardened as an edge.

    ``routes`` names its route configuration, ``fields`` are those of its access log.
    """
    return named(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=routes.partition("/")[0],
        rds={"route_config_name": routes, "config_source": ADS},
        http_filters=list(filters),
        access_log=[make_access_log(str(options.access_log), fields)],
        local_reply_config=make_local_replies(),
        upgrade_configs=[{"upgrade_type": "websocket"}],
        # A stream may be quiet for as long as it likes; only sending headers slowly is an attack.
        stream_idle_timeout="0s",
        request_timeout="0s",
        request_headers_timeout="30s",
        common_http_protocol_options={
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "DROP_HEADER",
        },
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "unknown"},
        http2_protocol_options={
            "allow_connect": True,
            "max_concurrent_streams": 1000,
            "connection_keepalive": {"interval": "60s", "timeout": "20s"},
        },
        max_request_headers_kb=options.headers_max_kib,
        # Nobody is trusted for having a private address: all x-envoy-* of clients are dropped.
        use_remote_address=True,
        internal_address_config={
            "cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]
        },
        early_header_mutation_extensions=[_strip_reserved_headers()],
        generate_request_id=True,
        server_header_transformation="PASS_THROUGH",
        normalize_path=True,
        merge_slashes=False,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
    )


def make_http_filters(options: GatewayOptions) -> list[Json]:
    """Return the filters in order: who asks, for which model, then wake, then carry."""
    return [
        _discovered(JWT_METADATA, JWT_TYPE),
        _discovered(REVOKED, RBAC_TYPE),
        {"name": LUA_FILTER, "disabled": True, "typed_config": make_listing_filter()},
        *make_model_filters(options),
    ]


def make_model_filters(options: GatewayOptions) -> list[Json]:
    """Return the filters of whoever is known: for which model, then wake, then carry."""
    return [
        {
            "name": BUFFER_FILTER,
            "disabled": True,
            "typed_config": make_buffer_filter(options.body_max_bytes),
        },
        {"name": JSON_FILTER, "disabled": True, "typed_config": make_json_filter()},
        make_on_demand_filter(),
        named(
            "envoy.filters.http.router",
            "envoy.extensions.filters.http.router.v3.Router",
            suppress_envoy_headers=True,
        ),
    ]


def _discovered(name: str, type_name: str) -> Json:
    return {
        "name": name,
        "config_discovery": {
            "config_source": ADS,
            "type_urls": [f"type.googleapis.com/{type_name}"],
        },
    }


def _strip_reserved_headers() -> Json:
    return named(
        "envoy.http.early_header_mutation.header_mutation",
        "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"remove_on_match": {"key_matcher": {"prefix": "x-tramontane-"}}}],
    )
