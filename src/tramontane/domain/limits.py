"""How much one API key may use, and what is left of it. Pure.

``metering`` decides with it at each request, where the engine runs; the API shows it. A rate is
held by the generic cell rate algorithm (ITU-T I.371, annex A): one instant says all, the time at
which what was used will have been allowed for. It needs no windows, and no burst is free at their
edges.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import NamedTuple

MINUTE_S = 60.0


class BudgetPeriod(StrEnum):
    """After which a budget starts anew: at midnight UTC, of every day or of the month's first."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a key may use; None: as much as it likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Of prompts and answers together, counted when a request ends."""
    streams: int | None = None
    """Requests at the same time."""
    budget: int | None = None
    """In billionths of a euro."""
    budget_period: BudgetPeriod = BudgetPeriod.DAY


class Standing(NamedTuple):
    """What a key has used, as its limits see it. Times are seconds since the epoch.

    A tuple, since two are made per request where every token passes.
    """

    requests_until: float = 0.0
    """When the requests made so far will have been allowed for."""
    tokens_until: float = 0.0
    running: int = 0
    spent: int = 0
    """In this period, in billionths of a euro."""
    period_ends: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OverLimit:
    """Why a request is refused, and when one will be taken again."""

    code: str
    message: str
    retry_after_s: int


def period_start(period: BudgetPeriod, now: float) -> float:
    """Return when the period that ``now`` falls into began."""
    midnight = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight if period is BudgetPeriod.DAY else midnight.replace(day=1)).timestamp()


def period_end(period: BudgetPeriod, now: float) -> float:
    """Return when the period that ``now`` falls into ends."""
    start = datetime.fromtimestamp(period_start(period, now), UTC)
    # No month is longer: the day found is in the next one.
    days = timedelta(days=1 if period is BudgetPeriod.DAY else 32)
    return period_start(period, (start + days).timestamp())


def admit(limits: Limits, standing: Standing, now: float) -> Standing | OverLimit:
    """Return where a key stands with one request more, or why it may not make it."""
    standing = _roll(limits, standing, now)
    budget, streams = limits.budget, limits.streams
    if budget is not None and standing.spent >= budget:
        return _over(
            "budget_spent",
            f"this key's budget for the {limits.budget_period} is spent",
            standing.period_ends - now,
        )
    if streams is not None and standing.running >= streams:
        return _over(
            "too_many_streams", f"this key may have {streams} requests open at a time", 1.0
        )
    if limits.tokens_per_minute is not None:
        debt_s = standing.tokens_until - now
        if debt_s >= MINUTE_S:
            return _over(
                "rate_limit_exceeded",
                f"this key may use {limits.tokens_per_minute} tokens per minute",
                debt_s - MINUTE_S,
            )
    until = standing.requests_until
    if limits.requests_per_minute is not None:
        until = max(until, now) + MINUTE_S / limits.requests_per_minute
        # Sums of fractions lose a little each time: a thousandth of a second is not early.
        if until - now > MINUTE_S + 0.001:
            return _over(
                "rate_limit_exceeded",
                f"this key may make {limits.requests_per_minute} requests per minute",
                until - now - MINUTE_S,
            )
    return standing._replace(requests_until=until, running=standing.running + 1)


def settle(limits: Limits, standing: Standing, *, tokens: int, cost: int, now: float) -> Standing:
    """Return where a key stands when one of its requests has ended."""
    standing = _roll(limits, standing, now)
    until = standing.tokens_until
    if limits.tokens_per_minute is not None:
        until = max(until, now) + tokens * MINUTE_S / limits.tokens_per_minute
    return standing._replace(
        tokens_until=until,
        running=max(standing.running - 1, 0),
        spent=standing.spent + cost,
    )


def is_spent(limits: Limits, standing: Standing, now: float) -> bool:
    """Return whether a key has no budget left in this period."""
    budget = limits.budget
    return budget is not None and _roll(limits, standing, now).spent >= budget


def _roll(limits: Limits, standing: Standing, now: float) -> Standing:
    """Begin the budget anew if its period is over."""
    if now < standing.period_ends:
        return standing
    return standing._replace(spent=0, period_ends=period_end(limits.budget_period, now))


def _over(code: str, message: str, wait_s: float) -> OverLimit:
    return OverLimit(code=code, message=message, retry_after_s=max(1, ceil(wait_s)))
