"""How far a fetch is: as numbers for programs, and as lines of a build's log for people. Pure.

A line is written when there is news: at most one a second, one per percent, and one now and then
where a percent takes long.
"""

from collections import deque
from dataclasses import dataclass, field

from tramontane.base.sizes import format_bytes

LINE_MIN_S = 1.0
LINE_MAX_S = 10.0
RATE_WINDOW_S = 10.0


@dataclass
class Progress:
    """One fetch on its way; ``now`` is monotonic time in all calls."""

    total_bytes: int
    done_bytes: int
    started_at: float
    _samples: deque[tuple[float, int]] = field(init=False)
    _said_at: float = field(init=False)
    _said_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self._samples = deque([(self.started_at, self.done_bytes)])
        self._said_at, self._said_bytes = self.started_at, self.done_bytes

    def update(self, done_bytes: int, now: float) -> None:
        """Take what has arrived by now."""
        self.done_bytes = min(done_bytes, self.total_bytes)
        self._samples.append((now, self.done_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW_S:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Bytes per second of late."""
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        return max(last - first, 0) / (last_at - first_at) if last_at > first_at else 0.0

    def news(self, now: float) -> str:
        """Return a line if it is time for one, else nothing."""
        since_s, gained = now - self._said_at, self.done_bytes - self._said_bytes
        worth_it = gained * 100 >= self.total_bytes and gained > 0
        if since_s < LINE_MIN_S or not (worth_it or since_s >= LINE_MAX_S):
            return ""
        self._said_at, self._said_bytes = now, self.done_bytes
        return str(self)

    def __str__(self) -> str:
        """Return it as a line."""
        whole = format_bytes(self.total_bytes)
        if self.done_bytes >= self.total_bytes:
            return f"checking {whole}"
        percent = self.done_bytes * 100 // self.total_bytes
        line = f"fetching: {format_bytes(self.done_bytes)} of {whole} ({percent} %)"
        rate = self.rate
        if rate < 1:
            return f"{line}, nothing comes at present"
        left_s = (self.total_bytes - self.done_bytes) / rate
        return f"{line}, {format_bytes(rate)}/s, {format_left(left_s)} left"


def format_left(seconds: float) -> str:
    """Return a time to wait, in the two units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
