"""How an instance's time is shared among its requests, known at each moment without the future.

At any time each of the requests under way has an equal share of it. So the shares of all requests
add up to the time in which there was any, however many there were, and time in which there was
none is nobody's. Pure; ``metering.books`` keeps one for an instance whose time has a price.
"""


class Sharing:
    """Counts what one request that is always there would have got so far."""

    def __init__(self) -> None:
        self._requests = 0
        self._each_s = 0.0
        self._at = 0.0

    def begin(self, now: float) -> float:
        """Take up a request; return what ``share_s`` and ``end`` need to know of it."""
        self._go_on(now)
        self._requests += 1
        return self._each_s

    def share_s(self, begun: float, now: float) -> float:
        """Return the share of a request so far."""
        self._go_on(now)
        return self._each_s - begun

    def end(self, begun: float, now: float) -> float:
        """Let a request go and return its share."""
        share_s = self.share_s(begun, now)
        self._requests -= 1
        return share_s

    def _go_on(self, now: float) -> None:
        # A clock that was set back stands still until it is where it was.
        if self._requests:
            self._each_s += max(now - self._at, 0.0) / self._requests
        self._at = max(now, self._at) if self._requests else now
