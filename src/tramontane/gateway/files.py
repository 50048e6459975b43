"""Files and batches under ``/v1``: the one part of inference that the control plane answers. Pure.

The gateway checks the key, says whose it is in headers that no client can set (the listener drops
all ``x-tramontane-*`` that come in), and carries bodies of any size as they come. Called by
``gateway.inference`` and ``gateway.resources``.
"""

from tramontane.gateway.clusters import CONNECT_TIMEOUT, RETRY, make_circuit_breakers
from tramontane.gateway.descriptors import Json, typed
from tramontane.gateway.grants import JWT_METADATA
from tramontane.gateway.services import KEYED

CLUSTER = "files"
"""Upstreams are called ``service@generation``, so none is ever called this."""

BATCH_JOBS = "/v1/batch/jobs"
"""Mistral's path, where errors have Mistral's shape."""
PATHS = ("/v1/files", "/v1/batches", BATCH_JOBS)

PROJECT_HEADER = "x-tramontane-project"
"""Whose the key is; its id stands in ``gateway.keys.KEY_HEADER``, as for every upstream."""


def make_file_routes() -> list[Json]:
    """Return the routes of every path that the control plane answers."""
    return [
        {
            "match": {"path_separated_prefix": path},
            "route": {
                "cluster": CLUSTER,
                "cluster_not_found_response_code": "SERVICE_UNAVAILABLE",
                "timeout": "0s",
                "idle_timeout": "0s",
            },
            "request_headers_to_add": [
                {
                    "header": {
                        "key": PROJECT_HEADER,
                        "value": f"%DYNAMIC_METADATA({JWT_METADATA}:key:project)%",
                    },
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            "typed_per_filter_config": {JWT_METADATA: KEYED},
        }
        for path in PATHS
    ]


def make_file_cluster(socket: str) -> Json:
    """Return the cluster of the control plane's socket."""
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {
            "cluster_name": CLUSTER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}
            ],
        },
        "circuit_breakers": make_circuit_breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                explicit_http_config={"http_protocol_options": {}},
                retry_policy=RETRY,
                # Below the 5 s after which the server there closes idle connections.
                common_http_protocol_options={"idle_timeout": "4s"},
            )
        },
    }
