"""The value that the phases of ``plan.service`` hand on: a service on its way to a plan.

Each phase takes a draft and returns a new one. Nothing outside ``plan`` sees it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tramontane.base.ids import IdFactory
from tramontane.domain.deployment import DEPLOYMENT_TRANSITIONS, Deployment, DeploymentStatus
from tramontane.domain.ids import CellId, DeploymentId, InstanceId
from tramontane.domain.instance import INSTANCE_TRANSITIONS, LIVE, Instance, InstanceStatus
from tramontane.domain.observation import Observation
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Event, ServiceSnapshot
from tramontane.plan.placement import Candidate
from tramontane.plan.scaling import Demand, Remembered, ScalingState


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What does not change while one plan is made."""

    snapshot: ServiceSnapshot
    observed: Mapping[InstanceId, Observation]
    """What the runtimes report now; an instance that is missing was never started."""
    demand: Demand
    memory_used: Mapping[CellId, int]
    """Bytes promised to the live instances of all services, by cell."""
    now: float
    ids: IdFactory


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Rows as they will be written, and why."""

    context: Circumstances
    service: Service
    deployments: Mapping[DeploymentId, Deployment]
    instances: Mapping[InstanceId, Instance]
    events: tuple[Event, ...] = ()
    candidates: Mapping[DeploymentId, tuple[Candidate, ...]] = field(
        default_factory=dict[DeploymentId, tuple[Candidate, ...]]
    )
    scaling_state: Remembered = field(default_factory=ScalingState)
    retire: tuple[str, ...] = ()
    """Instances to let go first, if some have to."""
    recall: tuple[str, ...] = ()
    """Instances on their way out that demand could use again."""
    look_again_at: float | None = None

    @property
    def target(self) -> Deployment | None:
        """The deployment that should serve."""
        return self._deployment(self.service.desired_deployment)

    @property
    def serving(self) -> Deployment | None:
        """The deployment that serves now, perhaps asleep."""
        return self._deployment(self.service.serving_deployment)

    @property
    def takes_requests(self) -> bool:
        """Whether what serves now, or will serve first, is sent requests.

        The service's own kind is that of the newest wish, which may still fail.
        """
        deployment = self.serving or self.target
        return deployment is not None and deployment.definition.kind.takes_requests

    def _deployment(self, deployment_id: DeploymentId | None) -> Deployment | None:
        return None if deployment_id is None else self.deployments.get(deployment_id)

    def live(self, deployment: Deployment | None = None) -> tuple[Instance, ...]:
        """Return live instances, oldest first; of one deployment if it is given."""
        return self.having(LIVE, deployment)

    def having(
        self, statuses: frozenset[InstanceStatus], deployment: Deployment | None = None
    ) -> tuple[Instance, ...]:
        """Return instances with one of these statuses, oldest first."""
        return tuple(
            each
            for each in self.instances.values()
            if each.status in statuses
            and (deployment is None or each.deployment_id == deployment.id)
        )

    def with_instance(self, instance: Instance) -> "Draft":
        """Return the draft with this instance new or changed."""
        known = self.instances.get(instance.id)
        assert (
            known is None
            or known.status is instance.status
            or instance.status in INSTANCE_TRANSITIONS[known.status]
        ), f"{instance.id}: {known.status if known else None} -> {instance.status}"
        return replace(self, instances={**self.instances, instance.id: instance})

    def with_deployment(self, deployment: Deployment) -> "Draft":
        """Return the draft with this deployment changed."""
        known = self.deployments[deployment.id]
        assert (
            known.status is deployment.status
            or deployment.status in DEPLOYMENT_TRANSITIONS[known.status]
        ), f"{deployment.id}: {known.status} -> {deployment.status}"
        return replace(self, deployments={**self.deployments, deployment.id: deployment})

    def move_deployment(
        self, deployment: Deployment, status: DeploymentStatus, reason: str, message: str
    ) -> "Draft":
        """Return the draft with the deployment in this status, and an event if that is news."""
        if (deployment.status, deployment.reason, deployment.message) == (status, reason, message):
            return self
        moved = replace(deployment, status=status, reason=reason, message=message)
        return self.with_deployment(moved).saying(deployment.id, reason, message)

    def saying(self, subject: str, reason: str, message: str) -> "Draft":
        """Return the draft with one more event."""
        event = Event(
            at=self.context.now,
            service_id=self.service.id,
            subject=subject,
            reason=reason,
            message=message,
        )
        return replace(self, events=(*self.events, event))

    def looking_again(self, at: float | None) -> "Draft":
        """Return the draft that asks to be looked at no later than ``at``."""
        if at is None or (self.look_again_at is not None and self.look_again_at <= at):
            return self
        return replace(self, look_again_at=at)


Phase = Callable[[Draft], Draft]
