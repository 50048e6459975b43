"""Remembers what the gateway reports, service by service, for the autoscaler to decide on.

The gateway calls ``record_wake`` and ``record_load``; ``reconcile.services`` asks for ``demand``.
Nothing of it is stored: after a restart nobody knows how long a service has been idle, so the
count begins anew and a service sleeps later rather than earlier.
"""

from collections import deque
from dataclasses import dataclass, field

from tramontane.domain.ids import ServiceId
from tramontane.domain.load import EngineLoad, UpstreamLoad
from tramontane.plan.scaling import STABLE_S, Demand, Remembered, Sample, ScalingState

REPORT_S = 1.0
"""How often the gateway reports; it is silent about upstreams that carry nothing."""


def service_of(upstream: str) -> ServiceId:
    """Return the service that an upstream name (``service@generation``) belongs to."""
    return ServiceId(upstream.rsplit("@", 1)[0])


@dataclass
class _Seen:
    samples: deque[Sample] = field(default_factory=deque[Sample])
    endpoints: dict[str, int] = field(default_factory=dict[str, int])
    waiting: bool = False
    last_active_at: float | None = None
    arrived: int = 0
    engines: tuple[EngineLoad, ...] = ()
    engines_at: float = 0.0
    state: Remembered = field(default_factory=ScalingState)


class DemandTracker:
    """Demand of every service that had any since this process began to look."""

    def __init__(self, observed_since: float) -> None:
        self._observed_since = observed_since
        self._services: dict[ServiceId, _Seen] = {}

    def record_wake(self, service_id: ServiceId, now: float) -> None:
        """Requests for this sleeping service are held at the gateway."""
        seen = self._seen(service_id)
        seen.waiting = True
        seen.last_active_at = now

    def record_load(self, load: UpstreamLoad) -> bool:
        """Take one interval's report; True if more or fewer requests are in progress than before.

        A report with a change in it is worth a look at the service; the others are not.
        """
        seen = self._seen(service_of(load.upstream))
        before = seen.samples[-1].in_progress if seen.samples else 0.0
        seen.endpoints = {
            each.endpoint: each.in_progress for each in load.endpoints if each.in_progress
        }
        seen.samples.append(Sample(at=load.at, in_progress=load.in_progress))
        while seen.samples[0].at <= load.at - STABLE_S:
            seen.samples.popleft()
        seen.arrived += load.issued
        if load.in_progress or load.issued:
            seen.last_active_at = load.at
        return load.in_progress != before

    def record_engines(
        self, service_id: ServiceId, engines: tuple[EngineLoad, ...], now: float
    ) -> None:
        """Take what the engines of a model say of themselves; it is believed for two reports."""
        seen = self._seen(service_id)
        seen.engines, seen.engines_at = engines, now

    def settle(self, service_id: ServiceId) -> None:
        """The held requests were let go: the service is reachable, or refuses them."""
        if service_id in self._services:
            self._services[service_id].waiting = False

    def keep_state(self, service_id: ServiceId, state: Remembered) -> None:
        """Remember what the scaling decision wants to find next time."""
        if state != ScalingState() or service_id in self._services:
            self._seen(service_id).state = state

    def forget(self, service_id: ServiceId) -> None:
        """The service is gone."""
        self._services.pop(service_id, None)

    def demand(self, service_id: ServiceId, now: float) -> Demand:
        """Return what is known of the service's demand at ``now`` (seconds since the epoch)."""
        seen = self._services.get(service_id)
        if seen is None:
            return Demand(observed_since=self._observed_since)
        silent_since = seen.samples[-1].at if seen.samples else now
        endpoints, samples = seen.endpoints, list(seen.samples)
        if now - silent_since > 2.5 * REPORT_S:
            # Silence means nothing in progress; say so in samples, or averages would freeze.
            endpoints = {}
            quiet = min(int((now - silent_since) / REPORT_S), int(STABLE_S))
            samples += [
                Sample(at=now - REPORT_S * step, in_progress=0.0)
                for step in range(quiet - 1, -1, -1)
            ]
        is_new = now - seen.engines_at <= 2.5 * REPORT_S
        return Demand(
            samples=tuple(samples),
            waiting=seen.waiting,
            last_active_at=seen.last_active_at,
            observed_since=self._observed_since,
            in_progress_by_endpoint=tuple(sorted(endpoints.items())),
            arrived=seen.arrived,
            engines=seen.engines if is_new else (),
            state=seen.state,
        )

    def _seen(self, service_id: ServiceId) -> _Seen:
        return self._services.setdefault(service_id, _Seen())
