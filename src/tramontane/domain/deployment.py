"""A deployment: one immutable version of a service and its way into service."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import Definition
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.domain.model import ModelFacts


class DeploymentStatus(StrEnum):
    """Where a deployment is in its life."""

    BUILDING = "building"
    PENDING = "pending"
    """Built; waits for a cell that may and can run it."""
    STARTING = "starting"
    HEALTHY = "healthy"
    """It passed its probes once and became the serving one (perhaps asleep now)."""
    SUPERSEDED = "superseded"
    FAILED = "failed"


DEPLOYMENT_TRANSITIONS: dict[DeploymentStatus, frozenset[DeploymentStatus]] = {
    DeploymentStatus.BUILDING: frozenset(
        {DeploymentStatus.PENDING, DeploymentStatus.FAILED, DeploymentStatus.SUPERSEDED}
    ),
    DeploymentStatus.PENDING: frozenset(
        {DeploymentStatus.STARTING, DeploymentStatus.FAILED, DeploymentStatus.SUPERSEDED}
    ),
    DeploymentStatus.STARTING: frozenset(
        {
            DeploymentStatus.PENDING,
            DeploymentStatus.HEALTHY,
            DeploymentStatus.FAILED,
            DeploymentStatus.SUPERSEDED,
        }
    ),
    DeploymentStatus.HEALTHY: frozenset({DeploymentStatus.SUPERSEDED}),
    # A rollback makes an old version the desired one again.
    DeploymentStatus.SUPERSEDED: frozenset({DeploymentStatus.PENDING}),
    DeploymentStatus.FAILED: frozenset({DeploymentStatus.PENDING}),
}

OVER = frozenset({DeploymentStatus.SUPERSEDED, DeploymentStatus.FAILED})
"""Statuses that a deployment leaves only if a user goes back to it."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """``number`` counts within its service and is what a user names: ``tram rollback NAME 3``."""

    id: DeploymentId
    service_id: ServiceId
    number: int
    definition: Definition
    created_at: float
    artifact: Artifact | None = None
    status: DeploymentStatus = DeploymentStatus.BUILDING
    reason: str = "created"
    message: str = ""
    start_failures: int = 0
    """Instances in a row that failed to start before the first one became ready."""

    @property
    def facts(self) -> ModelFacts | None:
        """What the weights say of themselves, if it serves a model that was looked at."""
        return None if self.artifact is None else self.artifact.facts
