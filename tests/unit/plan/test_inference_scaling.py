"""How many instances of a model there should be, and what may never be decided."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.domain.load import EngineLoad
from tramontane.plan.inference_demand import Learned, Line, Mean, Report, learn, start_s
from tramontane.plan.inference_scaling import (
    InferenceScaleDecision,
    InferenceScalingState,
    InstanceSignals,
    Objective,
    Signals,
    instances_for,
    plan_inference_scale,
    streams_ahead,
)

MISSED_SHARE = 0.1
NOW = 1_800_000_000.0
OBJECTIVE = Objective(first_token_s=2, between_tokens_s=0.2, instances_max=20, idle_s=60)
SLOTS = 16
STAY_S = 8
"""How long a request keeps its slot in these tests."""


def instance(name: str, open_: int = 0, **changes: object) -> InstanceSignals:
    engine = EngineLoad(endpoint=name, running=open_, queued=0, slots=SLOTS)
    signals = InstanceSignals(name=name, ready=True, open=open_, engine=engine)
    return replace(signals, **changes)


def play(
    arrivals: Sequence[int], *, objective: Objective = OBJECTIVE, ready: int = 4, start: float = 20
) -> list[InferenceScaleDecision]:
    """Look once a second at a fixed number of instances that share what came of late."""
    state, arrived, decisions = InferenceScalingState(), 0, list[InferenceScaleDecision]()
    active_at = NOW
    for second, count in enumerate(arrivals):
        now, arrived = NOW + second, arrived + count
        running = sum(arrivals[max(second - STAY_S + 1, 0) : second + 1])
        active_at = now if running else active_at
        signals = Signals(
            at=now,
            instances=[instance(f"i{n}", running // ready) for n in range(ready)],
            arrived=arrived,
            starts_s=(start,),
            last_active_at=active_at,
            slots=SLOTS,
        )
        decisions.append(plan_inference_scale(objective, signals, state, now))
        state = decisions[-1].state
    return decisions


def peak(rate: float, objective: Objective, learned: Learned) -> int:
    return instances_for(rate, rate * STAY_S, objective, learned, SLOTS)


def test_constant_load_asks_for_one_number_and_keeps_to_it() -> None:
    wanted = [decision.instances for decision in play([4] * 1800)]
    # 4 a second for 8 s are 32 streams, with room for chance 42: three times sixteen slots.
    assert set(wanted[120:]) == {3}


def test_chance_arrivals_at_a_constant_rate_do_not_make_it_flap() -> None:
    random = Random(7)
    arrivals = [sum(random.random() < 0.04 for _ in range(100)) for _ in range(3600)]
    wanted = [decision.instances for decision in play(arrivals)][600:]
    changes = sum(before != after for before, after in pairwise(wanted))
    assert changes <= 20
    assert max(wanted) - min(wanted) <= 2


def test_usual_bursts_are_prepared_for_and_a_calm_service_keeps_nothing_in_reserve() -> None:
    burst = ([1] * 120 + [12] * 60) * 16
    calm = play([1] * len(burst))
    bursty = play(burst)
    quiet = slice(-100, -70)  # in the middle of the last lull, after the last burst was let go
    assert {each.instances for each in calm[-600:]} == {1}
    assert min(each.instances for each in bursty[quiet]) >= 5
    assert {each.reason for each in bursty[quiet]} <= {"foreseen", "kept"}


def test_a_burst_that_lasts_less_than_a_start_is_not_chased() -> None:
    # Ten requests are held while the first instance loads; it will have done them all by the time
    # that others could help.
    signals = Signals(
        at=NOW,
        instances=[instance("i1", ready=False, engine=None)],
        held=10,
        arrived=10,
        starts_s=(40.0,),
        last_active_at=NOW,
        slots=SLOTS,
    )
    state = InferenceScalingState()
    assert plan_inference_scale(OBJECTIVE, signals, state, NOW).instances == 1


def test_a_backlog_that_outlasts_a_start_asks_for_more() -> None:
    signals = Signals(
        at=NOW, held=400, arrived=400, starts_s=(4.0,), last_active_at=NOW, slots=SLOTS
    )
    decision = plan_inference_scale(OBJECTIVE, signals, InferenceScalingState(), NOW)
    assert (decision.reason, decision.instances) == ("backlog", OBJECTIVE.instances_max)


def test_idle_goes_to_zero_exactly_when_the_time_is_over() -> None:
    signals = Signals(at=NOW, instances=[instance("i1")], last_active_at=NOW - 59)
    state = InferenceScalingState()
    early = plan_inference_scale(OBJECTIVE, signals, state, NOW)
    assert (early.instances, early.remove) == (1, ())
    assert early.recheck_at == NOW + 1
    late = plan_inference_scale(OBJECTIVE, signals, early.state, NOW + 1)
    assert (late.instances, late.reason, late.remove) == (0, "idle", ("i1",))


def test_with_a_minimum_it_never_sleeps() -> None:
    signals = Signals(at=NOW, instances=[instance("i1")], last_active_at=NOW - 9999)
    objective = replace(OBJECTIVE, instances_min=1)
    assert plan_inference_scale(objective, signals, InferenceScalingState(), NOW).instances == 1


def test_who_goes_is_soonest_done_and_who_comes_back_was_on_its_way_out() -> None:
    crowd = [
        instance("busy", 9, since=1.0),
        instance("calm", 1, since=2.0),
        instance("empty", 0, since=3.0),
        instance("loading", ready=False, engine=None, since=4.0),
    ]
    signals = Signals(at=NOW, instances=crowd, arrived=1, last_active_at=NOW, slots=SLOTS)
    decision = plan_inference_scale(OBJECTIVE, signals, InferenceScalingState(), NOW)
    assert decision.instances == 1
    assert set(decision.retire) == {"loading", "empty", "calm"}
    assert set(decision.remove) == {"loading", "empty"}
    on_their_way = [replace(each, retiring=True) for each in crowd]
    back = replace(signals, instances=on_their_way, at=NOW + 1)
    decision = plan_inference_scale(OBJECTIVE, back, InferenceScalingState(), NOW + 1)
    assert decision.recall == ("busy",)
    assert set(decision.remove) == {"loading", "empty"}


def test_prompts_that_take_long_to_read_need_instances_that_slots_do_not() -> None:
    streams_only = peak(3.0, OBJECTIVE, Learned())
    reading = Learned(reading=Mean(total=50.0, count=50.0))  # a second each
    assert streams_only == 2
    assert peak(3.0, OBJECTIVE, reading) >= 5


def test_a_stricter_objective_needs_more_instances() -> None:
    learned = Learned(reading=Mean(total=40.0, count=50.0))
    strict = replace(OBJECTIVE, late_share=0.001)
    assert peak(9.0, strict, learned) > peak(9.0, OBJECTIVE, learned)
    spare, less = (streams_ahead(4.0, 32, each, learned) for each in (strict, OBJECTIVE))
    assert spare > less > 32


def test_what_was_needed_within_the_time_of_a_start_is_kept() -> None:
    state = InferenceScalingState(wanted=((NOW - 19, 5),))
    signals = Signals(
        at=NOW, instances=[instance("i1", 3)], starts_s=(20.0,), last_active_at=NOW, slots=SLOTS
    )
    kept = plan_inference_scale(OBJECTIVE, signals, state, NOW)
    assert (kept.instances, kept.reason) == (5, "kept")
    over = plan_inference_scale(OBJECTIVE, replace(signals, at=NOW + 2), kept.state, NOW + 2)
    assert (over.instances, over.reason) == (1, "demand")


def test_streams_are_limited_by_the_pace_that_users_are_promised() -> None:
    pace = Line()
    for running in (2, 4, 8, 12):
        for _ in range(3):
            pace = pace.with_point(running, 0.04 + 0.025 * running, 1.0)
    slow = Learned(pace=pace)  # 6 streams reach 200 ms
    assert peak(3.0, OBJECTIVE, slow) == 4
    assert peak(3.0, replace(OBJECTIVE, between_tokens_s=1), slow) == 2


def test_full_memory_counts_as_full_slots() -> None:
    kv = Learned(kv_streams=Mean(total=60.0, count=10.0))  # six streams fill it
    assert peak(3.0, OBJECTIVE, kv) == 4


def test_reading_is_learned_from_who_did_not_wait_for_a_slot() -> None:
    known = learn(Learned(), Report(at=NOW, arrived=0, open=0, running=0), MISSED_SHARE)
    free = EngineLoad(endpoint="a", running=3, queued=1, slots=8, first_token_s=(1.0, 1.0) * 3)
    full = replace(free, endpoint="b", running=8, first_token_s=(30.0,) * 6)
    report = Report(at=NOW + 1, arrived=12, open=12, running=11, engines=(free, full))
    assert learn(known, report, MISSED_SHARE).reading.value(0.0) == pytest.approx(0.5)


def test_starts_are_believed_as_measured_last() -> None:
    report = Report(at=NOW, arrived=0, open=0, running=0, starts_s=(9.0, 41.0, float("nan")))
    assert start_s(learn(Learned(), report, MISSED_SHARE)) == 41.0


def test_a_report_that_was_seen_before_changes_nothing() -> None:
    report = Report(at=NOW, arrived=5, open=2, running=2)
    known = learn(Learned(), report, MISSED_SHARE)
    assert learn(known, replace(report, arrived=9), MISSED_SHARE) is known
    assert learn(known, replace(report, at=NOW - 1), MISSED_SHARE) is known


counts = st.integers(min_value=-5, max_value=2**40)
seconds = st.floats(allow_nan=True, allow_infinity=True)
engines = st.builds(
    EngineLoad,
    endpoint=st.just("e"),
    running=counts,
    queued=counts,
    slots=counts,
    prompt_tokens_waiting=counts,
    tokens_in_flight=counts,
    kv_share=seconds,
    first_token_s=st.lists(seconds, max_size=3).map(tuple),
    between_tokens_s=st.none() | seconds,
)


@st.composite
def any_signals(draw: st.DrawFn) -> Signals:
    names = draw(st.lists(st.sampled_from("abcdef"), max_size=6, unique=True))
    return Signals(
        at=draw(seconds),
        instances=[
            InstanceSignals(
                name=name,
                ready=draw(st.booleans()),
                retiring=draw(st.booleans()),
                open=draw(counts),
                since=draw(seconds),
                engine=draw(st.none() | engines),
            )
            for name in names
        ],
        held=draw(counts),
        arrived=draw(counts),
        starts_s=draw(st.lists(seconds, max_size=2)),
        last_active_at=draw(st.none() | seconds),
        slots=draw(seconds),
    )


@settings(max_examples=300)
@given(
    looks=st.lists(st.tuples(any_signals(), seconds), min_size=1, max_size=6),
    low=st.integers(min_value=-1, max_value=3),
    high=st.integers(min_value=-1, max_value=12),
    first_token_s=seconds,
    between_tokens_s=seconds,
    idle_s=seconds,
)
def test_whatever_is_reported_the_answer_is_within_bounds_and_removes_no_open_stream(
    looks: list[tuple[Signals, float]],
    low: int,
    high: int,
    first_token_s: float,
    between_tokens_s: float,
    idle_s: float,
) -> None:
    objective = Objective(
        first_token_s=first_token_s,
        between_tokens_s=between_tokens_s,
        instances_min=low,
        instances_max=high,
        idle_s=idle_s,
    )
    state = InferenceScalingState()
    for signals, now in looks:
        decision = plan_inference_scale(objective, signals, state, now)
        state = decision.state
        assert max(low, 0) <= decision.instances <= max(low, high, 1)
        by_name = {each.name: each for each in signals.instances}
        kept = [each for each in signals.instances if not each.retiring]
        assert len(kept) - len(decision.retire) >= min(decision.instances, len(kept))
        assert not set(decision.recall) & set(decision.remove)
        for name in decision.remove:
            each = by_name[name]
            assert each.open <= 0
            assert each.engine is None or max(each.engine.running, each.engine.queued) <= 0
            assert each.retiring or name in decision.retire


@given(
    rates=st.tuples(*[st.floats(min_value=0, max_value=1e4)] * 2),
    open_now=st.tuples(*[st.integers(min_value=0, max_value=10**5)] * 2),
    residence=st.floats(min_value=0.01, max_value=600),
    reading=st.floats(min_value=0, max_value=30),
    start=st.floats(min_value=0, max_value=600),
)
def test_more_load_never_needs_fewer_instances(
    rates: tuple[float, float],
    open_now: tuple[int, int],
    residence: float,
    reading: float,
    start: float,
) -> None:
    learned = Learned(
        residence=Mean(total=residence * 100, count=100.0),
        reading=Mean(total=reading * 100, count=100.0),
        start_s=start,
    )
    fewer, more = (
        instances_for(
            rate, streams_ahead(rate, streams, OBJECTIVE, learned), OBJECTIVE, learned, SLOTS
        )
        for rate, streams in zip(sorted(rates), sorted(open_now), strict=True)
    )
    assert fewer <= more


def test_a_short_start_goes_by_what_is_open_and_a_long_one_by_what_comes() -> None:
    short, long = Learned(start_s=0.0), Learned(start_s=100.0)
    assert streams_ahead(1.0, 30, OBJECTIVE, short) == pytest.approx(30, abs=3)
    assert streams_ahead(1.0, 30, OBJECTIVE, long) == pytest.approx(8 + 1.65 * 8**0.5, abs=0.1)


@given(held=st.lists(st.integers(min_value=0, max_value=5000), min_size=2, max_size=2))
def test_more_held_requests_never_need_fewer_instances(held: list[int]) -> None:
    # What was learned is the same: the two worlds differ in what waits now.
    state = play([2] * 120)[-1].state
    fewer, more = (
        plan_inference_scale(
            OBJECTIVE,
            Signals(at=NOW, held=count, last_active_at=NOW, slots=SLOTS),
            state,
            NOW + 120,
        ).instances
        for count in sorted(held)
    )
    assert fewer <= more
