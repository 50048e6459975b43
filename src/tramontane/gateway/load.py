"""Load as Envoy reports it: pushed over one gRPC stream, per endpoint, once an interval.

Used by ``gateway.gateway``; the autoscaler is the reader. What Envoy 1.40 does, as tried out:

- Every upstream that Envoy knows is in every report, with or without traffic. An idle one comes
  with no endpoints, so ``in_progress == issued == 0`` means idle, not unknown.
- An endpoint is listed in an interval in which it had a request open, begun or ended.
- Counting starts with the first report *after* an upstream became known: requests begun before
  that (the ones that woke it) are never in ``issued``, though they are in ``in_progress`` while
  they are open. So a wake counts as activity by itself.
- Requests held for a sleeping upstream are in no report: it is not known. Sleeping costs nothing.
- No report at all means that no Envoy is connected: unknown, and no reason to scale down.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tramontane.base.clock import Clock
from tramontane.domain.load import EndpointLoad, UpstreamLoad
from tramontane.gateway.aliases import CHAINS
from tramontane.gateway.bootstrap import CONTROL_PLANE
from tramontane.gateway.calls import OpenCalls
from tramontane.gateway.clusters import read_upstream_name
from tramontane.gateway.descriptors import Schema
from tramontane.gateway.egress import is_egress
from tramontane.gateway.files import CLUSTER as FILES

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"


OWN = frozenset({CONTROL_PLANE, CHAINS, FILES})
"""Clusters that are no service's; what passes through the chains is counted at its model."""


class LoadServer:
    """Turns Envoy's load reports into ``UpstreamLoad`` callbacks."""

    def __init__(
        self,
        *,
        schema: Schema,
        clock: Clock,
        interval_s: float,
        on_load: Callable[[UpstreamLoad], None],
    ) -> None:
        self._request_class = schema.message_class("envoy.service.load_stats.v3.LoadStatsRequest")
        self._response_class = schema.message_class("envoy.service.load_stats.v3.LoadStatsResponse")
        self._clock = clock
        self._interval_s = interval_s
        self._on_load = on_load
        self._calls = OpenCalls()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handler to add to a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=self._request_class.FromString,
            response_serializer=self._response_class.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamLoadStats": method})

    def close(self) -> None:
        """End every stream; Envoys connect again."""
        self._calls.end()

    async def _serve(self, requests: AsyncIterator[Any], context: Any) -> None:
        response = self._response_class(send_all_clusters=True, report_endpoint_granularity=True)
        response.load_reporting_interval.FromMilliseconds(round(self._interval_s * 1000))
        with self._calls.serving():
            await context.write(response)
            async for request in requests:
                for load in _read_report(request, self._clock.now()):
                    self._on_load(load)


def _read_report(request: Any, at: float) -> list[UpstreamLoad]:
    """Return the load of each upstream of the product's services."""
    endpoints: dict[str, list[EndpointLoad]] = {}
    intervals: dict[str, float] = {}
    for stats in request.cluster_stats:
        if stats.cluster_name in OWN or is_egress(stats.cluster_name):
            continue
        # A name of an earlier generation counts for the upstream whose endpoints it shares.
        name = read_upstream_name(stats.cluster_service_name or stats.cluster_name)
        endpoints.setdefault(name, []).extend(_read_endpoints(stats))
        intervals[name] = stats.load_report_interval.ToTimedelta().total_seconds()
    return [
        UpstreamLoad(
            upstream=name,
            at=at,
            interval_s=intervals[name],
            endpoints=tuple(sorted(loads, key=lambda load: load.endpoint)),
        )
        for name, loads in endpoints.items()
    ]


def _read_endpoints(stats: Any) -> list[EndpointLoad]:
    return [
        EndpointLoad(
            endpoint=endpoint.address.pipe.path,
            in_progress=endpoint.total_requests_in_progress,
            issued=endpoint.total_issued_requests,
            failed=endpoint.total_error_requests,
        )
        for locality in stats.upstream_locality_stats
        for endpoint in locality.upstream_endpoint_stats
    ]
