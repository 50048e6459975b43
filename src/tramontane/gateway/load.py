"""Load as Envoy reports it: pushed over one gRPC stream, per endpoint, once an interval.

Used by ``gateway.gateway``; the autoscaler is the reader.
"""

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tramontane.base.clock import Clock
from tramontane.domain.load import EndpointLoad, UpstreamLoad
from tramontane.gateway.bootstrap import CONTROL_PLANE
from tramontane.gateway.descriptors import Schema

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"


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

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handler to add to a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=self._request_class.FromString,
            response_serializer=self._response_class.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"StreamLoadStats": method})

    async def _serve(self, requests: AsyncIterator[Any], context: Any) -> None:
        response = self._response_class(send_all_clusters=True, report_endpoint_granularity=True)
        response.load_reporting_interval.FromMilliseconds(round(self._interval_s * 1000))
        await context.write(response)
        async for request in requests:
            at = self._clock.now()
            for stats in request.cluster_stats:
                if stats.cluster_name != CONTROL_PLANE:
                    self._on_load(_read_cluster(stats, at))


def _read_cluster(stats: Any, at: float) -> UpstreamLoad:
    endpoints = [
        EndpointLoad(
            endpoint=endpoint.address.pipe.path,
            in_progress=endpoint.total_requests_in_progress,
            issued=endpoint.total_issued_requests,
            failed=endpoint.total_error_requests,
        )
        for locality in stats.upstream_locality_stats
        for endpoint in locality.upstream_endpoint_stats
    ]
    return UpstreamLoad(
        # An alias of an earlier generation counts for the upstream whose endpoints it shares.
        upstream=stats.cluster_service_name or stats.cluster_name,
        at=at,
        interval_s=stats.load_report_interval.ToTimedelta().total_seconds(),
        endpoints=tuple(sorted(endpoints, key=lambda load: load.endpoint)),
    )
