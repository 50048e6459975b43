"""The plan for one service: from what is known, at one instant, to what to write and do.

``reconcile.services`` calls ``plan_service`` whenever something about the service may have
changed, writes the changes and carries out the effects. Everything may be repeated: the effects
are derived from the rows, so a plan made again after a crash asks for the same things.
"""

from dataclasses import dataclass

from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.ids import DeploymentId, InstanceId
from tramontane.domain.instance import LIVE, Instance, InstanceStatus
from tramontane.domain.observation import ObservedStatus
from tramontane.domain.route import EgressRoute, ServiceRoute, WaySockets
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Changes
from tramontane.plan.conclusion import conclude
from tramontane.plan.draft import Circumstances, Draft, Phase
from tramontane.plan.observing import accept_builds, fold_observations
from tramontane.plan.rollout import (
    back_off,
    end_drained,
    evict_forbidden,
    judge_cells,
    retire_abandoned,
    roll_out,
)
from tramontane.plan.routing import egress_of, renew_name, route_of
from tramontane.plan.scaling import Remembered

PHASES: tuple[Phase, ...] = (
    accept_builds,
    fold_observations,
    judge_cells,
    evict_forbidden,
    back_off,
    retire_abandoned,
    roll_out,
    end_drained,
    conclude,
    renew_name,
)


@dataclass(frozen=True, kw_only=True)
class ServicePlan:
    """What to write, then what to do; every effect may be repeated."""

    changes: Changes
    build: tuple[DeploymentId, ...]
    """The desired deployment, while it has no artifact yet."""
    start: tuple[Instance, ...]
    """Placed instances that their runtime does not know yet."""
    stop: tuple[Instance, ...]
    forget: tuple[InstanceId, ...]
    """Ended instances whose remains may go."""
    route: ServiceRoute | None
    egress: EgressRoute | None
    finished: bool
    """The service was deleted and nothing of it is left."""
    scaling_state: Remembered
    look_again_at: float | None
    """No later than this (seconds since the epoch) the plan may come out differently."""


def plan_service(context: Circumstances, sockets: WaySockets) -> ServicePlan:
    """Return the plan for the snapshot's service; pure, and total over all snapshots."""
    snapshot = context.snapshot
    draft = Draft(
        context=context,
        service=snapshot.service,
        deployments={each.id: each for each in snapshot.deployments},
        instances={each.id: each for each in snapshot.instances},
        scaling_state=context.demand.state,
    )
    for phase in PHASES:
        draft = phase(draft)
    return ServicePlan(
        changes=_changes(draft),
        build=tuple(
            each.id
            for each in (draft.target,)
            if each is not None and each.status is DeploymentStatus.BUILDING
        ),
        start=tuple(
            each
            for each in draft.having(frozenset({InstanceStatus.ALLOCATED}))
            if each.id not in context.observed
        ),
        stop=tuple(
            each
            for each in draft.having(frozenset({InstanceStatus.STOPPING}))
            if each.id in context.observed
        ),
        forget=tuple(
            each.id
            for each in draft.instances.values()
            if each.status not in LIVE and _exited(draft, each.id)
        ),
        route=route_of(draft),
        egress=egress_of(draft, sockets),
        finished=draft.service.deleted and not draft.live(),
        scaling_state=draft.scaling_state,
        look_again_at=draft.look_again_at,
    )


def _exited(draft: Draft, instance_id: InstanceId) -> bool:
    observation = draft.context.observed.get(instance_id)
    return observation is not None and observation.status is ObservedStatus.EXITED


def _changes(draft: Draft) -> Changes:
    snapshot = draft.context.snapshot
    deployments = {each.id: each for each in snapshot.deployments}
    instances = {each.id: each for each in snapshot.instances}
    service: Service | None = draft.service if draft.service != snapshot.service else None
    return Changes(
        service=service,
        deployments=tuple(
            each for each in draft.deployments.values() if each != deployments[each.id]
        ),
        instances=tuple(
            each for each in draft.instances.values() if each != instances.get(each.id)
        ),
        events=draft.events,
    )
