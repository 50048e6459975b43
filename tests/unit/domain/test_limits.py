"""What limits allow: never more than they say, and all that they say."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.limits import (
    BudgetPeriod,
    Limits,
    OverLimit,
    Standing,
    admit,
    is_spent,
    period_end,
    period_start,
    settle,
)

NOON = datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp()
gaps = st.lists(st.floats(0, 30), min_size=1, max_size=120)


@given(st.integers(1, 50), gaps)
def test_requests_per_minute(limit: int, waits: list[float]) -> None:
    limits, standing, now = Limits(requests_per_minute=limit), Standing(), NOON
    admitted: list[float] = []
    for wait in waits:
        now += wait
        decided = admit(limits, standing, now)
        if isinstance(decided, OverLimit):
            assert decided.retry_after_s >= 1
            # Whoever comes back when told to is let in.
            again = admit(limits, standing, now + decided.retry_after_s)
            assert isinstance(again, Standing)
        else:
            standing = decided
            admitted.append(now)
    for start in admitted:
        # A full minute's worth may be saved up, and no more.
        within = sum(start <= each < start + 60 for each in admitted)
        assert within <= 2 * limit
    assert len(admitted) <= limit + (now - admitted[0]) * limit / 60 + 1
    first = [admit(limits, Standing(), NOON)]
    for _ in range(limit - 1):
        assert isinstance(first[-1], Standing)
        first.append(admit(limits, first[-1], NOON))
    assert isinstance(first[-1], Standing), "all of a minute's requests may come at once"
    assert isinstance(admit(limits, first[-1], NOON), OverLimit)


@given(st.integers(1, 1000), st.lists(st.integers(0, 400), max_size=40))
def test_tokens_per_minute_are_overshot_by_what_is_under_way_alone(
    limit: int, sizes: list[int]
) -> None:
    limits, standing, used = Limits(tokens_per_minute=limit), Standing(), 0
    for size in sizes:
        decided = admit(limits, standing, NOON)
        if isinstance(decided, OverLimit):
            assert used >= limit
            return
        assert used < limit
        used += size
        standing = settle(limits, decided, tokens=size, cost=0, now=NOON)


@given(st.integers(1, 8), st.lists(st.booleans(), max_size=60))
def test_streams_never_exceed_their_number(limit: int, moves: list[bool]) -> None:
    limits, standing, running = Limits(streams=limit), Standing(), 0
    for begins in moves:
        if begins:
            decided = admit(limits, standing, NOON)
            assert isinstance(decided, OverLimit) == (running == limit)
            if isinstance(decided, Standing):
                standing, running = decided, running + 1
        elif running:
            standing, running = settle(limits, standing, tokens=0, cost=0, now=NOON), running - 1
        assert standing.running == running <= limit


@given(st.integers(1, 1000), st.lists(st.integers(0, 300), min_size=1, max_size=30))
def test_a_budget_is_overshot_by_what_is_under_way_alone(budget: int, costs: list[int]) -> None:
    limits, standing, spent = Limits(budget=budget), Standing(), 0
    for cost in costs:
        decided = admit(limits, standing, NOON)
        assert (
            isinstance(decided, OverLimit) == (spent >= budget) == is_spent(limits, standing, NOON)
        )
        if isinstance(decided, OverLimit):
            assert decided.code == "budget_spent"
            assert decided.retry_after_s == 12 * 3600
            tomorrow = NOON + decided.retry_after_s
            assert isinstance(admit(limits, standing, tomorrow), Standing)
            assert not is_spent(limits, standing, tomorrow)
            return
        spent += cost
        standing = settle(limits, decided, tokens=0, cost=cost, now=NOON)
        assert standing.spent == spent


def test_a_budget_begins_anew_while_a_request_is_under_way() -> None:
    limits = Limits(budget=10, budget_period=BudgetPeriod.MONTH)
    standing = admit(limits, Standing(spent=3, period_ends=NOON + 1), NOON)
    assert isinstance(standing, Standing)
    march = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    settled = settle(limits, standing, tokens=0, cost=4, now=march + 5)
    assert (settled.spent, settled.period_ends) == (4, march + 31 * 86400)


@pytest.mark.parametrize("refused", [None, "streams"])
def test_a_refusal_uses_nothing_up(refused: str | None) -> None:
    limits = Limits(requests_per_minute=5, streams=1 if refused else None, budget=9)
    standing = Standing(running=1 if refused else 0)
    decided = admit(limits, standing, NOON)
    assert isinstance(decided, OverLimit) == bool(refused)
    if isinstance(decided, Standing):
        assert decided.requests_until > standing.requests_until


@given(st.sampled_from(BudgetPeriod), st.floats(0, 4e9))
def test_periods_follow_one_another(period: BudgetPeriod, now: float) -> None:
    start, end = period_start(period, now), period_end(period, now)
    assert start <= now < end
    assert period_start(period, end) == end
    assert period_end(period, start) == end
    assert datetime.fromtimestamp(end, UTC).hour == 0
    assert end - start >= (86400 if period is BudgetPeriod.DAY else 28 * 86400)
    assert Standing(period_ends=end).period_ends == end
