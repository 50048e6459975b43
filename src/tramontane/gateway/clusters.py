"""Upstreams as Envoy clusters and their endpoints. Pure; called by ``gateway.resources``."""

from tramontane.domain.route import Upstream
from tramontane.gateway.descriptors import Json, typed

CONNECT_TIMEOUT = "2s"
"""An instance is a Unix socket on this machine: slower than this is dead, and a retry goes on."""

UNLIMITED = 1_000_000
"""Envoy's default is 1024 of anything; how much is too much is the autoscaler's to say."""


RETRY = {
    # Only what cannot have reached the app: an instance that dies between requests stays unseen.
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    # Connecting to a Unix socket whose queue is full fails at once, unlike TCP: a burst of held
    # requests that is let go must be given time to get in.
    "num_retries": 8,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": typed(
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            ),
        }
    ],
    "host_selection_retry_max_attempts": 5,
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.25s"},
}
"""Part of the cluster, not of a thousand routes: reading it is the dearest part of a route."""


def make_cluster(name: str, *, endpoints_of: str | None = None) -> Json:
    """Return the cluster of one upstream; its endpoints come apart, so that they change cheaply.

    With ``endpoints_of`` it shares another upstream's endpoints.
    """
    return {
        "name": name,
        "metadata": make_reason("no_instance", "no instance of this service is ready"),
        "type": "EDS",
        "eds_cluster_config": {
            "service_name": endpoints_of or name,
            "eds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "connect_timeout": CONNECT_TIMEOUT,
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.least_request",
                        "typed_config": typed(
                            "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
                        ),
                    }
                }
            ]
        },
        # Panic mode would send requests to endpoints known to be bad.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": make_circuit_breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http_protocol_options": {}},
                retry_policy=RETRY,
                # Below the 5 s after which common app servers close idle connections, so that a
                # request seldom meets a connection that its app is just closing.
                common_http_protocol_options={"idle_timeout": "4s"},
            )
        },
    }


def make_endpoints(target: Upstream) -> Json:
    """Return the endpoints of one upstream: Unix sockets, in the order given."""
    healthy = [_make_endpoint(path) for path in target.endpoints or ()]
    draining = [{**_make_endpoint(path), "health_status": "DRAINING"} for path in target.draining]
    return {
        "cluster_name": target.name,
        "endpoints": [{"lb_endpoints": [*healthy, *draining]}],
    }


def make_cluster_name(upstream: str, turn: int) -> str:
    """Return the name under which Envoy knows an upstream.

    Envoy asks for a cluster it does not know only once per name. An upstream that goes to sleep
    again under a name that was answered before takes the next turn.
    """
    return f"{upstream}+{turn}" if turn else upstream


def read_upstream_name(cluster: str) -> str:
    """Return the upstream that a cluster stands for."""
    return cluster.partition("+")[0]


def _make_endpoint(path: str) -> Json:
    return {"endpoint": {"address": {"pipe": {"path": path}}}}


def make_failed_cluster(name: str, code: str, message: str) -> Json:
    """Return a cluster without endpoints that carries why it has none.

    Requests held for an upstream that will not start are released by this; Envoy's own 503 then
    says ``code`` and ``message``, which ``gateway.replies`` reads from the metadata.
    """
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name},
        "metadata": make_reason(code, message),
    }


def make_reason(code: str, message: str) -> Json:
    """Return metadata saying why a cluster has no endpoints, for when it has none."""
    return {"filter_metadata": {"tramontane": {"code": code, "message": message}}}


def make_circuit_breakers() -> Json:
    """Return limits that never act by accident; Envoy has one set per priority."""
    limits = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
    }
    return {
        "thresholds": [{"priority": "DEFAULT", **limits}, {"priority": "HIGH", **limits}],
    }
