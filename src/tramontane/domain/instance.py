"""An instance: one running copy of a deployment in one cell."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId


class InstanceStatus(StrEnum):
    """Where an instance is in its life."""

    ALLOCATED = "allocated"
    """Placed; its runtime has not been told yet."""
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    """Runs, but failed its probes; takes no new requests and is being replaced."""
    DRAINING = "draining"
    """Takes no new requests; those in progress run on."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    """Ended because it was asked to."""
    FAILED = "failed"
    """Ended by itself, or never became ready."""


INSTANCE_TRANSITIONS: dict[InstanceStatus, frozenset[InstanceStatus]] = {
    InstanceStatus.ALLOCATED: frozenset(
        {InstanceStatus.STARTING, InstanceStatus.STOPPING, InstanceStatus.FAILED}
    ),
    InstanceStatus.STARTING: frozenset(
        {
            InstanceStatus.HEALTHY,
            InstanceStatus.STOPPING,
            InstanceStatus.FAILED,
            InstanceStatus.DRAINING,
        }
    ),
    InstanceStatus.HEALTHY: frozenset(
        {
            InstanceStatus.UNHEALTHY,
            InstanceStatus.DRAINING,
            InstanceStatus.STOPPING,
            InstanceStatus.FAILED,
        }
    ),
    InstanceStatus.UNHEALTHY: frozenset(
        {
            InstanceStatus.HEALTHY,
            InstanceStatus.DRAINING,
            InstanceStatus.STOPPING,
            InstanceStatus.FAILED,
        }
    ),
    # An instance that had become one too many is needed again before its last request has ended.
    InstanceStatus.DRAINING: frozenset(
        {InstanceStatus.HEALTHY, InstanceStatus.STOPPING, InstanceStatus.FAILED}
    ),
    InstanceStatus.STOPPING: frozenset({InstanceStatus.STOPPED, InstanceStatus.FAILED}),
    InstanceStatus.STOPPED: frozenset(),
    InstanceStatus.FAILED: frozenset(),
}

LIVE = frozenset(
    {
        InstanceStatus.ALLOCATED,
        InstanceStatus.STARTING,
        InstanceStatus.HEALTHY,
        InstanceStatus.UNHEALTHY,
        InstanceStatus.DRAINING,
        InstanceStatus.STOPPING,
    }
)
"""Statuses in which something of the instance may still exist in its cell."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """``endpoint`` is the Unix socket on the cell's machine where the gateway reaches it.

    An instance that takes no connections never has one.
    """

    id: InstanceId
    service_id: ServiceId
    deployment_id: DeploymentId
    cell_id: CellId
    created_at: float
    status: InstanceStatus = InstanceStatus.ALLOCATED
    reason: str = "placed"
    message: str = ""
    pid: int | None = None
    endpoint: str | None = None
    started_at: float | None = None
    ready_at: float | None = None
    draining_since: float | None = None
    drain_until: float | None = None
    """When requests in progress are cut; None while draining: never."""
    ended_at: float | None = None
