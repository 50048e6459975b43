"""What a decision about one service is made from, and what it writes.

``store.read_snapshot`` returns the first in one consistent read; ``plan`` turns it into the
second; ``store.apply`` writes that in one transaction, guarded by the service's generation.
"""

from dataclasses import dataclass

from tramontane.domain.cell import Cell
from tramontane.domain.deployment import Deployment
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.domain.instance import Instance
from tramontane.domain.service import Service


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a service and that a person may ask about later."""

    at: float
    service_id: ServiceId
    subject: str
    """Id of what it happened to: a deployment, an instance, or the service itself."""
    reason: str
    """Stable code, such as ``instance_failed``."""
    message: str


@dataclass(frozen=True, kw_only=True)
class ServiceSnapshot:
    """One service and everything that decisions about it depend on, read at one instant."""

    service: Service
    project_policy: tuple[str, ...]
    """Presets of the project; they add to the deployment's own."""
    deployments: tuple[Deployment, ...]
    """The desired and the serving one, any with live instances, any still building."""
    instances: tuple[Instance, ...]
    """The live ones (``domain.instance.LIVE``), oldest first."""
    cells: tuple[Cell, ...]

    def deployment(self, deployment_id: DeploymentId | None) -> Deployment | None:
        """Return the deployment with this id, if it is in the snapshot."""
        return next((each for each in self.deployments if each.id == deployment_id), None)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """New values of rows, observed side only; what is not named stays as it is."""

    service: Service | None = None
    deployments: tuple[Deployment, ...] = ()
    instances: tuple[Instance, ...] = ()
    """New instances and new states of known ones."""
    events: tuple[Event, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether applying this would write nothing."""
        return not (self.service or self.deployments or self.instances or self.events)
