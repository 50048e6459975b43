"""How many instances demand asks for.

The shape is that of Knative's autoscaler (a stable and a panic window over concurrency), with
three changes for what users of it suffer from: instances that are still starting count as
capacity, so a slow start does not multiply itself; an instance that carries a request is never
chosen away by an average; and zero is decided by the time since the last request, not by a window.

Called by ``plan.rollout`` at every look; the caller keeps ``ScalingState`` between calls. Models
are scaled by ``plan.inference_scaling``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from tramontane.domain.definition import Scaling
from tramontane.domain.load import EngineLoad
from tramontane.plan.inference_scaling import InferenceScalingState

STABLE_S = 60.0
PANIC_S = 6.0
TICK_S = 2.0
PANIC_RATIO = 2.0
"""Panic begins when the short window asks for this many times the present capacity."""
SCALE_IN_RATIO = 2.0
"""At most halve per decision, so that one quiet minute does not undo a peak."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Requests in progress at one instant."""

    at: float
    in_progress: float


@dataclass(frozen=True, kw_only=True)
class ScalingState:
    """What has to be remembered from one decision to the next."""

    panic_until: float | None = None
    panic_floor: int = 0
    """In panic the count only grows."""


Remembered = ScalingState | InferenceScalingState
"""Of a service: the second one if it is a model."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What the gateway saw of one service, newest last."""

    samples: tuple[Sample, ...] = ()
    waiting: bool = False
    """Requests are held at the gateway for a sleeping service."""
    last_active_at: float | None = None
    """When a request was last begun, held or in progress."""
    observed_since: float = 0.0
    """Before this nobody looked: no conclusion about idleness reaches further back."""
    in_progress_by_endpoint: tuple[tuple[str, int], ...] = ()
    arrived: int = 0
    """Requests that ever came, as far back as anybody looked."""
    engines: tuple[EngineLoad, ...] = ()
    """What the engines of a model say of themselves, if any does."""
    state: Remembered = field(default_factory=ScalingState)


@dataclass(frozen=True, kw_only=True)
class ScaleDecision:
    """``instances`` are wanted; ``recheck_at`` is when the answer may change by itself."""

    instances: int
    reason: str
    state: ScalingState
    recheck_at: float | None = None


def plan_scale(scaling: Scaling, demand: Demand, capacity: int, now: float) -> ScaleDecision:
    """Return how many instances a service that is awake should have.

    ``capacity`` counts instances that serve or are starting. Times are seconds since the epoch.
    """
    low, high = scaling.instances_min, max(scaling.instances_max, scaling.instances_min)
    idle_since = max(demand.last_active_at or 0.0, demand.observed_since)
    busy = demand.waiting or (bool(demand.samples) and demand.samples[-1].in_progress > 0)
    sleep_at = idle_since + scaling.idle_s
    if not busy and now >= sleep_at and low == 0:
        return ScaleDecision(instances=0, reason="idle", state=ScalingState())

    stable = _average(demand.samples, now, STABLE_S)
    panic = _average(demand.samples, now, PANIC_S)
    wanted_stable = ceil(stable / scaling.concurrency)
    wanted_panic = ceil(panic / scaling.concurrency)
    before = demand.state if isinstance(demand.state, ScalingState) else ScalingState()
    state = _panic(before, wanted_panic, capacity, now)
    floor = max(low, 1)
    if state.panic_until is not None:
        wanted, reason = max(state.panic_floor, capacity), "panic"
    else:
        wanted, reason = wanted_stable, "concurrency"
        if wanted < capacity:
            wanted = max(wanted, int(capacity / SCALE_IN_RATIO))
    instances = min(max(wanted, floor), high)
    recheck_at = sleep_at if low == 0 and not busy and instances else None
    if stable > 0 or instances > max(wanted_stable, floor):
        # The windows move on even if nobody reports anything new.
        recheck_at = now + TICK_S
    return ScaleDecision(instances=instances, reason=reason, state=state, recheck_at=recheck_at)


def _panic(state: ScalingState, wanted: int, capacity: int, now: float) -> ScalingState:
    if state.panic_until is not None and now >= state.panic_until:
        state = ScalingState()
    if capacity > 0 and wanted >= PANIC_RATIO * capacity:
        state = ScalingState(panic_until=now + STABLE_S, panic_floor=max(wanted, state.panic_floor))
    elif state.panic_until is not None:
        state = replace(state, panic_floor=max(wanted, state.panic_floor))
    return state


def _average(samples: Sequence[Sample], now: float, window_s: float) -> float:
    """Mean of the samples of the last ``window_s`` seconds; 0 if there is none."""
    recent = [sample.in_progress for sample in samples if sample.at > now - window_s]
    return sum(recent) / len(recent) if recent else 0.0
