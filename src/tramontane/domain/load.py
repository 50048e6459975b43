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


@dataclass(frozen=True, kw_only=True)
class EngineLoad:
    """What the engine behind one endpoint says of itself, as of its last report."""

    endpoint: str
    running: int
    """Requests that have a slot: their prompt is being read or their answer written."""
    queued: int
    """Requests that wait for one."""
    slots: int
    """Requests that it takes at a time."""
    prompt_tokens_waiting: int = 0
    """Of the queued ones."""
    tokens_in_flight: int = 0
    """Of the running ones: prompts, and answers so far."""
    kv_share: float = 0.0
    """Part of the KV memory that is in use."""
    first_token_s: tuple[float, ...] = ()
    """Times to first token of answers begun since the report before."""
    between_tokens_s: float | None = None
    """Mean time between two tokens of one answer; None while nothing is written."""
