"""How many instances of a model there should be, and which of them take no new requests.

The objective is what a person in front of a model notices: the time to the first token and the
time between tokens. Utilisation of processors says nothing about either and is not looked at. What
is decided on is the arrival rate, foreseen for when an instance ordered now would have loaded, and
what was learned about the engine (``plan.inference_demand``): the number of instances is the
smallest whose slots hold the streams and whose prompts are read in time.

An instance with an open stream is never removed. One that is to go takes no new requests first, is
removed when its last stream has ended, and until then can be called back, which costs nothing.

Called by ``plan.rollout`` for services of kind ``model``, and by the simulator in ``bench``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, exp, inf, isfinite, log, sqrt
from statistics import NormalDist

from tramontane.domain.load import EngineLoad
from tramontane.plan.inference_demand import (
    STEP_S,
    Learned,
    Report,
    learn,
    rate_per_s,
    reading_s,
    residence_s,
    start_s,
    streams_per_instance,
    waiting_requests,
)

LOOK_S = 1.0
RATE_MAX = 1e6
"""Requests per second above which nothing is reckoned any more."""
OUTLASTED = 2.0
"""Of the requests that come while there are too few instances, about one in two is late: so twice
as many may come then as may be late."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What users are to notice of the load, and what may be spent on it."""

    first_token_s: float = 2.0
    """Requests get their first token within this time …"""
    late_share: float = 0.05
    """… but for this share of them."""
    between_tokens_s: float = 0.2
    instances_min: int = 0
    instances_max: int = 5
    idle_s: float = 300.0


@dataclass(frozen=True, kw_only=True)
class InstanceSignals:
    """One instance as the gateway and its engine see it."""

    name: str
    ready: bool
    """It takes requests; otherwise it is still loading."""
    retiring: bool = False
    """It takes no new ones."""
    open: int = 0
    """Requests that it has, as the gateway counts them."""
    since: float = 0.0
    """When it was ordered."""
    engine: EngineLoad | None = None
    """None where no engine reports: the gateway's count is all there is."""


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Everything there is to decide on, as of one moment."""

    at: float
    """When this was reported; the same report twice is learned once."""
    instances: Sequence[InstanceSignals] = ()
    held: int = 0
    """Requests held at the gateway since nothing is ready."""
    arrived: int = 0
    """Requests that ever came; a counter, so that no look is ever missed."""
    starts_s: Sequence[float] = ()
    """Measured times of recent starts, newest last."""
    last_active_at: float | None = None
    slots: float = 20.0
    """Streams that one instance takes, where its engine does not say."""


@dataclass(frozen=True, kw_only=True)
class InferenceScalingState:
    """What has to be remembered from one decision to the next."""

    learned: Learned = field(default_factory=Learned)
    wanted: tuple[tuple[float, int], ...] = ()
    """What was needed at the looks of the last loading time, newest last."""


@dataclass(frozen=True, kw_only=True)
class InferenceScaleDecision:
    """``instances`` are wanted, those that retire not counted."""

    instances: int
    reason: str
    state: InferenceScalingState
    retire: tuple[str, ...] = ()
    """Take no new requests from now on."""
    recall: tuple[str, ...] = ()
    """Were retiring, and take requests again."""
    remove: tuple[str, ...] = ()
    """Retiring, and without an open stream: may go."""
    recheck_at: float | None = None


def plan_inference_scale(
    objective: Objective, signals: Signals, state: InferenceScalingState, now: float
) -> InferenceScaleDecision:
    """Return how many instances of a model there should be; total over all inputs."""
    low = max(objective.instances_min, 0)
    high = max(objective.instances_max, low, 1)
    missed_share = OUTLASTED * _late_share(objective)
    learned = learn(state.learned, _report(signals), missed_share)
    waiting = _open(signals)
    idle_s = max(objective.idle_s, 0.0)
    quiet_since = signals.last_active_at if signals.last_active_at is not None else -inf
    asleep = not waiting and low == 0 and not now < quiet_since + idle_s
    if asleep:
        needed, reason = 0, "idle"
        state = InferenceScalingState(learned=learned)
    else:
        needed, reason = _needed(objective, signals, learned, high)
        needed = min(max(needed, low, 1), high)
        state = _remember(state, learned, needed, now)
    wanted = max((count for _, count in state.wanted), default=needed)
    if wanted > needed:
        reason = "kept"
    kept = [each for each in signals.instances if not each.retiring]
    recall = _recall(signals, wanted - len(kept))
    retire = _retire(kept, len(kept) - wanted)
    leaving = {each.name for each in signals.instances if each.retiring} - set(recall)
    return InferenceScaleDecision(
        instances=wanted,
        reason=reason,
        state=state,
        retire=retire,
        recall=recall,
        remove=tuple(
            each.name
            for each in signals.instances
            if each.name in leaving.union(retire) and not _streams(each)
        ),
        recheck_at=_recheck_at(signals, now, None if low else quiet_since + idle_s),
    )


def instances_for(
    rate: float, streams: float, objective: Objective, learned: Learned, slots: float
) -> int:
    """Return the fewest instances that keep the objective, without bound.

    Their slots hold the streams, and prompts that come at this rate are read in time. Never fewer
    for more of either.
    """
    if not rate > 0 and not streams > 0:
        return 0
    rate = min(max(rate, 0.0), RATE_MAX)
    per_instance = streams_per_instance(learned, slots, objective.between_tokens_s)
    needed = max(ceil(max(streams, 0.0) / per_instance), 1)
    reading = reading_s(learned)
    work = rate * reading
    needed = max(needed, int(work) + 1)
    # Where reading alone takes all the time there is, more instances cannot keep the objective;
    # then prompts should at least not wait much longer than they take.
    patience = max(objective.first_token_s - reading, reading / 2, 1e-3)
    tail = -log(_late_share(objective))  # of exponential waits, over their mean
    while tail * _mean_wait_s(work / needed, reading, needed) > patience:
        needed += max(needed // 8, 1)
    return needed


def streams_ahead(rate: float, open_now: float, objective: Objective, learned: Learned) -> float:
    """Return how many streams there will be when one ordered at the next look has loaded.

    Those that are open now end one by one and others come at the mean rate, so their number moves
    towards what that rate sustains, and chance adds to it (an M/M/∞ queue). After a long start only
    the mean counts, with room for chance as in square-root staffing; after a short one, what is
    open now.
    """
    stay_s = max(residence_s(learned), 1e-3)
    mean = min(max(rate, 0.0), RATE_MAX) * stay_s
    left = exp(-(start_s(learned) + LOOK_S) / stay_s)
    chance = NormalDist().inv_cdf(1 - _late_share(objective)) * sqrt(mean * (1 - left * left))
    return mean + (open_now - mean) * left + chance


def _late_share(objective: Objective) -> float:
    return objective.late_share if 0.001 <= objective.late_share <= 0.5 else 0.05


def _mean_wait_s(share: float, service_s: float, servers: int) -> float:
    """Return the mean wait in front of servers that are busy for a share of the time.

    Sakasegawa's approximation for M/M/c.
    """
    return service_s * share ** (sqrt(2 * (servers + 1)) - 1) / (servers * (1 - share))


def _needed(objective: Objective, signals: Signals, learned: Learned, high: int) -> tuple[int, str]:
    slots = _slots(signals)
    per_instance = streams_per_instance(learned, slots, objective.between_tokens_s)
    rate = min(rate_per_s(learned), RATE_MAX)
    streams = streams_ahead(rate, _open(signals), objective, learned)
    needed, reason = instances_for(rate, streams, objective, learned, slots), "demand"
    peak = min(learned.foreseen_per_s, RATE_MAX)
    foreseen = instances_for(peak, peak * residence_s(learned), objective, learned, slots)
    if foreseen > needed:
        needed, reason = foreseen, "foreseen"
    # What already waits needs more only if it is still there when an instance has loaded.
    backlog = _backlog(signals, learned)
    cost_s = max(residence_s(learned) / per_instance, reading_s(learned), 1e-6)
    loading_s = max(start_s(learned), LOOK_S)
    coming = sum(not each.retiring for each in signals.instances)
    left = backlog + (rate - coming / cost_s) * loading_s
    if backlog > 0 and left > 0:
        within_s = max(loading_s, objective.first_token_s)
        cleared = ceil(rate * cost_s + left * cost_s / within_s)
        if cleared > needed:
            needed, reason = cleared, "backlog"
    occupied = ceil(sum(_running(each) for each in signals.instances) / max(slots, 1.0))
    return min(max(needed, occupied), high), reason


def _remember(
    state: InferenceScalingState, learned: Learned, needed: int, now: float
) -> InferenceScalingState:
    """Return the state with what is needed now.

    What was needed within the last loading time is still wanted: an instance that goes and is
    ordered again costs as much as one that stays for so long, and serves nobody meanwhile.
    """
    since = now - start_s(learned)
    seen = [each for each in state.wanted if since < each[0] <= now and each[1] > needed]
    return InferenceScalingState(learned=learned, wanted=(*seen, (now, needed)))


def _recheck_at(signals: Signals, now: float, sleep_at: float | None) -> float | None:
    """Return when the answer may change by itself: while nothing is open, by the forecast alone."""
    if _open(signals):
        return now + LOOK_S
    if not signals.instances:
        return None
    return now + STEP_S if sleep_at is None or not now < sleep_at < now + STEP_S else sleep_at


def _recall(signals: Signals, missing: int) -> tuple[str, ...]:
    """Name retiring instances to take requests again, the busiest first: they stay anyway."""
    retiring = [each for each in signals.instances if each.retiring and each.ready]
    ranked = sorted(retiring, key=lambda each: (-_streams(each), each.name))
    return tuple(each.name for each in ranked[: max(missing, 0)])


def _retire(kept: Sequence[InstanceSignals], surplus: int) -> tuple[str, ...]:
    """Name those that serve nobody yet, newest first; then those that are the soonest done."""

    def rank(each: InstanceSignals) -> tuple[bool, int, int, float, str]:
        tokens = each.engine.tokens_in_flight if each.engine else 0
        return (each.ready, _streams(each), tokens, -each.since, each.name)

    return tuple(each.name for each in sorted(kept, key=rank)[: max(surplus, 0)])


def _report(signals: Signals) -> Report:
    return Report(
        at=signals.at,
        arrived=signals.arrived,
        open=_open(signals),
        running=sum(_running(each) for each in signals.instances),
        engines=[each.engine for each in signals.instances if each.engine is not None],
        starts_s=signals.starts_s,
    )


def _open(signals: Signals) -> int:
    return max(signals.held, 0) + sum(_streams(each) for each in signals.instances)


def _streams(instance: InstanceSignals) -> int:
    """How many streams are open: whoever sees more is right, since neither is ever ahead."""
    engine = instance.engine
    seen = max(engine.running, 0) + max(engine.queued, 0) if engine else 0
    return max(instance.open, seen, 0)


def _running(instance: InstanceSignals) -> int:
    return max(instance.engine.running, 0) if instance.engine else max(instance.open, 0)


def _backlog(signals: Signals, learned: Learned) -> float:
    engines = [each.engine for each in signals.instances if each.engine is not None]
    return max(signals.held, 0) + waiting_requests(learned, engines)


def _slots(signals: Signals) -> float:
    """Return the slots of one instance: the fewest that an engine reports."""
    reported = [
        each.engine.slots
        for each in signals.instances
        if each.engine is not None and each.engine.slots > 0
    ]
    slots = min(reported, default=signals.slots)
    return max(slots, 1.0) if isfinite(slots) else 1.0
