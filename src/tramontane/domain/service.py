"""A service: what a user runs under one name."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.definition import ServiceKind
from tramontane.domain.ids import DeploymentId, ServiceId


class ServiceStatus(StrEnum):
    """What a user sees of a service at one glance; ``reason`` and ``message`` say more."""

    PENDING = "pending"
    """Nothing may or can run yet: a build, a placement or a start is outstanding."""
    STARTING = "starting"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """It serves, but the last deployment failed or fewer instances run than wanted."""
    SLEEPING = "sleeping"
    """At zero instances; the next request wakes it, or its user if it takes no requests."""
    ERROR = "error"
    """It cannot serve; ``reason`` says why."""
    PAUSED = "paused"
    DELETING = "deleting"


@dataclass(frozen=True, kw_only=True)
class Service:
    """The desired side was acknowledged to a user; the observed side is what reconciling found."""

    id: ServiceId
    project: str
    name: str
    kind: ServiceKind
    generation: int
    """Counts changes of the desired side; an older one is refused."""
    created_at: float

    desired_deployment: DeploymentId | None
    """The deployment that should serve."""
    desired_instances: int | None = None
    """Set by ``tram scale``: overrides demand until the next deployment or ``tram resume``."""
    sleep_requested: bool = False
    """Set by ``tram scale NAME 0``: sleep now; the next request wakes it. What takes no requests
    sleeps until ``tram scale``, ``tram resume`` or a deployment."""
    paused: bool = False
    deleted: bool = False

    serving_deployment: DeploymentId | None = None
    """The one that gets the requests now; stays on the last good one while a new one fails."""
    status: ServiceStatus = ServiceStatus.PENDING
    reason: str = "created"
    message: str = ""
    route_generation: int = 0
    """Part of the upstream's name at the gateway: fresh each time the service goes to zero."""
    wake_failures: int = 0
    retry_at: float | None = None
    """After failed starts: no new attempt before this time (seconds since the epoch)."""
