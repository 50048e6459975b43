"""A clock that moves only when a test says so."""


class FakeClock:
    """Starts at a fixed instant; ``advance`` moves both readings."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        """Return the fake wall clock, seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Return the fake monotonic clock, seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        assert seconds >= 0
        self._now += seconds
        self._monotonic += seconds
