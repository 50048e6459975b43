"""The autoscaler's arithmetic."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.definition import Scaling
from tramontane.plan.scaling import Demand, Sample, ScalingState, plan_scale

NOW = 1_800_000_000.0
SCALING = Scaling(instances_min=0, instances_max=10, concurrency=10, idle_s=60)


def steady(in_progress: float, seconds: int = 60, **changes: Any) -> Demand:
    samples = tuple(
        Sample(at=NOW - step, in_progress=in_progress) for step in range(seconds - 1, -1, -1)
    )
    return Demand(samples=samples, last_active_at=NOW, **changes)


def test_steady_demand_asks_for_what_it_needs() -> None:
    assert plan_scale(SCALING, steady(35), 4, NOW).instances == 4
    assert plan_scale(SCALING, steady(41), 4, NOW).instances == 5


def test_a_burst_is_answered_within_the_short_window() -> None:
    quiet = [Sample(at=NOW - step, in_progress=1) for step in range(59, 5, -1)]
    burst = [Sample(at=NOW - step, in_progress=80) for step in range(5, -1, -1)]
    demand = Demand(samples=(*quiet, *burst), last_active_at=NOW)
    decision = plan_scale(SCALING, demand, 1, NOW)
    assert decision.reason == "panic"
    assert decision.instances == 8


def test_panic_only_grows_until_its_window_is_over() -> None:
    state = ScalingState(panic_until=NOW + 30, panic_floor=8)
    decision = plan_scale(SCALING, steady(5, state=state), 8, NOW)
    assert decision.instances == 8
    late = ScalingState(panic_until=NOW, panic_floor=8)
    assert plan_scale(SCALING, steady(5, state=late), 8, NOW).instances == 4


def test_scale_in_halves_at_most() -> None:
    assert plan_scale(SCALING, steady(1), 8, NOW).instances == 4


def test_starting_instances_are_capacity_so_slow_starts_do_not_multiply() -> None:
    # Ten requests wait for one instance that is loading; nine more would not help them.
    decision = plan_scale(SCALING, steady(10, waiting=True), 1, NOW)
    assert decision.instances == 1


def test_idle_goes_to_zero_exactly_when_the_time_is_over() -> None:
    demand = Demand(samples=(), last_active_at=NOW - 59)
    decision = plan_scale(SCALING, demand, 1, NOW)
    assert decision.instances == 1
    assert decision.recheck_at == NOW + 1
    assert plan_scale(SCALING, demand, 1, NOW + 1).instances == 0


def test_nobody_concludes_idleness_from_a_time_when_nobody_looked() -> None:
    demand = Demand(samples=(), last_active_at=None, observed_since=NOW - 10)
    assert plan_scale(SCALING, demand, 1, NOW).instances == 1


@given(
    loads=st.lists(st.integers(min_value=0, max_value=500), max_size=60),
    capacity=st.integers(min_value=0, max_value=20),
    low=st.integers(min_value=0, max_value=3),
    high=st.integers(min_value=1, max_value=12),
    waiting=st.booleans(),
)
def test_the_answer_is_always_within_bounds(
    loads: list[int], capacity: int, low: int, high: int, waiting: bool
) -> None:
    samples = tuple(
        Sample(at=NOW - len(loads) + index, in_progress=load) for index, load in enumerate(loads)
    )
    scaling = Scaling(instances_min=low, instances_max=high, concurrency=10, idle_s=60)
    demand = Demand(samples=samples, waiting=waiting, last_active_at=NOW - 30)
    decision = plan_scale(scaling, demand, capacity, NOW)
    assert low <= decision.instances <= max(low, high)
    if waiting or (loads and loads[-1]):
        assert decision.instances >= 1
