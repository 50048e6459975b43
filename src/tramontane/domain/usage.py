"""What one inference request used: the unit of the ledger.

``metering`` writes records where the engine runs, ``reconcile.ledger`` brings them into the store,
the API and ``tram usage`` add them up. Never content: counts, names and times alone.
"""

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum

NANO = 1_000_000_000
"""Money is counted in whole billionths of a euro: sums stay exact."""
EUROS_MAX = 100_000
"""No price is higher: what is, was meant otherwise."""
HOUR_S = 3600.0
TOKENS_PRICED = 1_000_000
"""Prices are quoted for so many tokens, as the field does."""


def format_euros(billionths: int) -> str:
    """Return an amount in euro as an exact decimal number: ``0.000123456``."""
    whole, rest = divmod(abs(billionths), NANO)
    return f"{'-' if billionths < 0 else ''}{whole}.{rest:09d}"


def parse_euros(text: str) -> int | None:
    """Return billionths of a euro for a decimal number; None unless it is exactly so many."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        return None
    if not (amount.is_finite() and 0 <= amount <= EUROS_MAX):
        return None
    billionths = amount.scaleb(9)
    return int(billionths) if billionths == int(billionths) else None


class RequestEnd(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    REFUSED = "refused"
    """The engine answered with an error."""
    ABORTED = "aborted"
    """The client went away first."""
    CUT = "cut"
    """The engine, or what carries its answers, was killed."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the engine counted them."""

    prompt_tokens: int = 0
    """All of the prompt, those in the cache included."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt: taken from the engine's cache instead of being computed."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a model costs: its tokens, in billionths of a euro per million, or its time."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None
    """None: the same as other tokens of the prompt."""
    hour: int = 0
    """In billionths of a euro, of an instance; the requests that it has at a time share it."""

    def cost(self, usage: Usage, share_s: float = 0.0) -> int:
        """Return the cost in billionths of a euro, rounded down.

        ``share_s`` is the request's share of the instance's time (``metering.sharing``).
        """
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(usage.prompt_tokens - usage.cached_tokens, 0)
        total = fresh * self.prompt + usage.cached_tokens * cached
        tokens = (total + usage.completion_tokens * self.completion) // TOKENS_PRICED
        return tokens + int(self.hour * share_s / HOUR_S)


@dataclass(frozen=True, kw_only=True)
class Account:
    """What all requests of one instance have in common."""

    instance: str
    project: str
    service: str
    digest: str
    """Of the weights."""
    cell: str
    price: Price = field(default_factory=Price)


@dataclass(frozen=True, kw_only=True)
class UsageRecord:
    """One line of the ledger."""

    instance: str
    sequence: int
    """Counts the requests of an instance: with it the record's identity."""
    request_id: str
    """The gateway's ``x-request-id``, the same as in the access log."""
    key: str
    """Id of the API key; empty if the request needed none."""
    project: str
    service: str
    model: str
    """As the client asked for it: the service's name or an alias."""
    digest: str
    """Of the weights."""
    cell: str
    api: str
    at: float
    """When the request arrived at the instance, seconds since the epoch."""
    first_token_s: float | None
    """From then to the first token; None if there was none."""
    duration_s: float
    status: int
    """Of the HTTP answer; 0 if none was sent."""
    end: RequestEnd
    usage: Usage = field(default_factory=Usage)
    cost: int = 0
    """In billionths of a euro."""
    traceparent: str | None = None
    """Of the caller's trace (``domain.trace``), if the request came with a valid one."""
    position: int = field(default=0, compare=False)
    """Where it stands in the ledger, counted from 1; 0 until it is there."""
