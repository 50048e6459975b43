"""Time as an argument.

Everything that needs the time takes a ``Clock``; the process entry points pass ``SystemClock``,
tests pass ``tramontane.testing.clocks.FakeClock`` and move it by hand.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Return seconds since the Unix epoch (UTC): for what people and other machines read."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards: for measuring durations in one process."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return seconds since the Unix epoch (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()
