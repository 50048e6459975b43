"""Demand as the gateway saw it: what the autoscaler decides on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EndpointLoad:
    """One interval's traffic of one endpoint."""

    endpoint: str
    in_progress: int
    """Requests open at the end of the interval."""
    issued: int
    """Requests begun in the interval."""
    failed: int = 0


@dataclass(frozen=True, kw_only=True)
class UpstreamLoad:
    """One interval's traffic of one upstream (``Upstream.name``)."""

    upstream: str
    at: float
    """End of the interval, seconds since the epoch."""
    interval_s: float
    endpoints: tuple[EndpointLoad, ...]

    @property
    def in_progress(self) -> int:
        """Requests open at the end of the interval, over all endpoints."""
        return sum(endpoint.in_progress for endpoint in self.endpoints)

    @property
    def issued(self) -> int:
        """Requests begun in the interval, over all endpoints."""
        return sum(endpoint.issued for endpoint in self.endpoints)
