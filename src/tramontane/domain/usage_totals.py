"""What all requests of a service used since there is a ledger: counts that only ever grow.

The store adds each record here in the transaction that brings it into the ledger
(``store.usage``); ``api.metrics`` shows them to Prometheus. So a look at them costs the same
however long the ledger is, and no restart sets them back. The bounds of the histograms are those of
OpenTelemetry's conventions for generative AI; changing one would falsify what was counted before.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from tramontane.domain.usage import UsageRecord

FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
"""``gen_ai.server.time_to_first_token``."""
DURATION_S = tuple(0.01 * 2**power for power in range(14))
"""``gen_ai.server.request.duration``: 0.01 to 81.92."""
TOKENS = tuple(4.0**power for power in range(14))
"""``gen_ai.client.token.usage``: 1 to 67,108,864."""


@dataclass(kw_only=True)
class Histogram:
    """Values by the smallest bound that holds them; the last count is of those beyond all."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


def make_histogram(bounds: tuple[float, ...]) -> Histogram:
    """Return an empty one."""
    return Histogram(bounds=bounds, counts=[0] * (len(bounds) + 1))


@dataclass(kw_only=True)
class UsageTotals:
    """Of one service; the name of a deleted one goes on where it was."""

    ends: dict[str, int] = field(default_factory=dict[str, int])
    """Requests by end and HTTP status: ``finished/200``."""
    cached_tokens: int = 0
    cost: int = 0
    """In billionths of a euro."""
    first_token_s: Histogram = field(default_factory=lambda: make_histogram(FIRST_TOKEN_S))
    duration_s: Histogram = field(default_factory=lambda: make_histogram(DURATION_S))
    prompt_tokens: Histogram = field(default_factory=lambda: make_histogram(TOKENS))
    """Of a request; the total is that of all."""
    completion_tokens: Histogram = field(default_factory=lambda: make_histogram(TOKENS))

    def add(self, records: Iterable[UsageRecord]) -> None:
        """Count records, each for the first and only time."""
        for each in records:
            end = f"{each.end.value}/{each.status}"
            self.ends[end] = self.ends.get(end, 0) + 1
            self.cached_tokens += each.usage.cached_tokens
            self.cost += each.cost
            self.prompt_tokens.add(each.usage.prompt_tokens)
            self.completion_tokens.add(each.usage.completion_tokens)
            self.duration_s.add(each.duration_s)
            if each.first_token_s is not None:
                self.first_token_s.add(each.first_token_s)
