"""What Envoy is started with: where to find us, and nothing that can change later. Pure.

Called by ``gateway.envoy``.
"""

from dataclasses import dataclass
from pathlib import Path

from tramontane.gateway.descriptors import Json, named, typed

CONTROL_PLANE = "control_plane"
CONNECTIONS_MAX = 50_000


@dataclass(frozen=True, kw_only=True)
class EnvoyPaths:
    """Where one Envoy keeps its things: in directories that only we may enter."""

    directory: Path
    """Files."""
    sockets: Path
    """Keep it short: a Unix socket's path has at most 107 bytes."""

    @property
    def bootstrap(self) -> Path:
        """The configuration it was started with."""
        return self.directory / "envoy.json"

    @property
    def xds_socket(self) -> Path:
        """Where it finds us."""
        return self.sockets / "xds.sock"

    @property
    def admin_socket(self) -> Path:
        """Envoy's own administration, never on TCP."""
        return self.sockets / "admin.sock"

    @property
    def log(self) -> Path:
        """What Envoy prints."""
        return self.directory / "envoy.log"

    @property
    def record(self) -> Path:
        """Which process runs, so that a later control plane can adopt it."""
        return self.directory / "envoy.pid.json"


def make_bootstrap(paths: EnvoyPaths, *, node_id: str, memory_max_bytes: int) -> Json:
    """Return the bootstrap configuration."""
    ads: Json = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    # By default Envoy waits up to half a minute between attempts; a control plane that is back
    # should steer at once, and the other end is a socket on this machine.
    again = {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.5s"}}
    grpc_service = {"envoy_grpc": {"cluster_name": CONTROL_PLANE, "retry_policy": again}}
    return {
        "node": {"id": node_id, "cluster": "tramontane"},
        "admin": {
            "address": {"pipe": {"path": str(paths.admin_socket), "mode": 0o600}},
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc_service],
                "set_node_on_first_message_only": True,
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "cluster_manager": {
            "load_stats_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [grpc_service],
            }
        },
        "bootstrap_extensions": [
            named(
                "envoy.bootstrap.internal_listener",
                "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            )
        ],
        "static_resources": {"clusters": [_make_control_plane(paths)]},
        "overload_manager": _make_overload_manager(memory_max_bytes),
        "stats_flush_interval": "60s",
    }


def _make_control_plane(paths: EnvoyPaths) -> Json:
    return {
        "name": CONTROL_PLANE,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": CONTROL_PLANE,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": {"pipe": {"path": str(paths.xds_socket)}}}}
                    ]
                }
            ],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http2_protocol_options": {}},
            )
        },
    }


def _make_overload_manager(memory_max_bytes: int) -> Json:
    heap = "envoy.resource_monitors.fixed_heap"

    def act(action: str, share: float) -> Json:
        return {
            "name": f"envoy.overload_actions.{action}",
            "triggers": [{"name": heap, "threshold": {"value": share}}],
        }

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            named(
                heap,
                "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                max_heap_size_bytes=memory_max_bytes,
            ),
            named(
                "envoy.resource_monitors.global_downstream_max_connections",
                "envoy.extensions.resource_monitors.downstream_connections.v3"
                ".DownstreamConnectionsConfig",
                max_active_downstream_connections=CONNECTIONS_MAX,
            ),
        ],
        "actions": [
            act("shrink_heap", 0.9),
            act("disable_http_keepalive", 0.95),
            act("stop_accepting_requests", 0.98),
        ],
    }
