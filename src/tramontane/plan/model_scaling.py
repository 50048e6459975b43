"""Puts what is known of a model's service into the words of ``plan.inference_scaling``.

Called by ``plan.rollout``. What the gateway reports is always there; what an engine says of itself
only where one is asked, and the decision does without.
"""

from tramontane.domain.deployment import Deployment
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.observation import ObservedStatus
from tramontane.plan.draft import Draft
from tramontane.plan.inference_scaling import (
    InferenceScaleDecision,
    InferenceScalingState,
    InstanceSignals,
    Objective,
    Signals,
    plan_inference_scale,
)
from tramontane.plan.needs import needs_of
from tramontane.plan.scaling import Demand

SCALED_IN = "scaled_in"
"""Reason of an instance that goes because it is one too many: the only ones to call back."""

_KEPT = frozenset({InstanceStatus.ALLOCATED, InstanceStatus.STARTING, InstanceStatus.HEALTHY})
_LEAVING = frozenset({InstanceStatus.DRAINING})


def plan_model_scale(
    draft: Draft, deployment: Deployment, demand: Demand
) -> InferenceScaleDecision:
    """Return how many instances of a model there should be."""
    scaling, usual = deployment.definition.scaling, Objective()
    objective = Objective(
        first_token_s=scaling.first_token_s or usual.first_token_s,
        between_tokens_s=scaling.between_tokens_s or usual.between_tokens_s,
        instances_min=scaling.instances_min,
        instances_max=scaling.instances_max,
        idle_s=scaling.idle_s,
    )
    state = demand.state if isinstance(demand.state, InferenceScalingState) else None
    signals = _signals(draft, deployment, demand)
    return plan_inference_scale(
        objective, signals, state or InferenceScalingState(), draft.context.now
    )


def _signals(draft: Draft, deployment: Deployment, demand: Demand) -> Signals:
    leaving = [each for each in draft.having(_LEAVING, deployment) if _can_come_back(draft, each)]
    open_requests = dict(demand.in_progress_by_endpoint)
    engines = {each.endpoint: each for each in demand.engines}
    started = sorted(
        (each.ready_at, each.ready_at - each.created_at)
        for each in draft.live(deployment)
        if each.ready_at is not None
    )
    return Signals(
        at=demand.samples[-1].at if demand.samples else draft.context.now,
        instances=[
            InstanceSignals(
                name=each.id,
                ready=each.status in {InstanceStatus.HEALTHY, InstanceStatus.DRAINING},
                retiring=each.status is InstanceStatus.DRAINING,
                open=open_requests.get(each.endpoint or "", 0),
                since=each.created_at,
                engine=engines.get(each.endpoint or ""),
            )
            for each in (*draft.having(_KEPT), *leaving)
        ],
        # The gateway tells that requests are held, not how many.
        held=int(demand.waiting),
        arrived=demand.arrived,
        starts_s=[took_s for _, took_s in started],
        last_active_at=max(demand.last_active_at or 0.0, demand.observed_since),
        slots=_slots(draft, deployment),
    )


def _can_come_back(draft: Draft, instance: Instance) -> bool:
    observation = draft.context.observed.get(instance.id)
    ready = observation is not None and observation.status is ObservedStatus.READY
    return ready and instance.reason == SCALED_IN


def _slots(draft: Draft, deployment: Deployment) -> float:
    """Return how many requests one instance computes at a time, at most what its user says.

    The engine's own number depends on the cell; the least of any cell is safe in all.
    """
    sizings = [
        needs_of(deployment.definition, deployment.facts, cell.capacity).sizing
        for cell in draft.context.snapshot.cells
    ]
    slots = [sizing.parallel for sizing in sizings if sizing is not None]
    return min([deployment.definition.scaling.concurrency, *slots])
