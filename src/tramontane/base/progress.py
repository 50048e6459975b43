"""How far a fetch of many bytes is: as numbers for programs, and as lines for people. Pure.

A line is written when there is news: at most one a second, one per percent, and one now and then
where a percent takes long. Several may wait for one fetch, each with lines of its own: ``weights``
writes them to the logs of builds, the command line to the terminal.
"""

import math
from collections import deque
from dataclasses import dataclass, field

from tramontane.base.sizes import format_bytes

LINE_MIN_S = 1.0
LINE_MAX_S = 10.0
RATE_WINDOW_S = 10.0


@dataclass
class Progress:
    """One fetch on its way; times are monotonic."""

    total_bytes: int
    started_at: float
    done_bytes: int = 0
    _samples: deque[tuple[float, int]] = field(init=False, default_factory=deque[tuple[float, int]])

    def update(self, done_bytes: int, now: float) -> None:
        """Take what is here by now."""
        self.done_bytes = min(done_bytes, self.total_bytes)
        self._samples.append((now, self.done_bytes))
        while len(self._samples) > 2 and self._samples[1][0] <= now - RATE_WINDOW_S:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Return the bytes per second of late."""
        if not self._samples:
            return 0.0
        # What was here before the first word of it did not come at any rate.
        first_at, first = self._samples[0]
        return max(self.done_bytes - first, 0) / max(now - first_at, 0.001)

    def describe(self, now: float) -> str:
        """Return how far it is, as a line."""
        whole = format_bytes(self.total_bytes)
        if self.done_bytes >= self.total_bytes:
            return f"checking {whole}"
        percent = self.done_bytes * 100 // self.total_bytes
        line = f"fetching: {format_bytes(self.done_bytes)} of {whole} ({percent} %)"
        rate = self.rate(now)
        if rate < 1:
            return f"{line}, nothing comes at present"
        left_s = (self.total_bytes - self.done_bytes) / rate
        return f"{line}, {format_bytes(round(rate))}/s, {format_left(left_s)} left"


@dataclass
class Reporter:
    """Decides for one reader when the next line is due."""

    said_at: float
    said_bytes: int = 0

    def next_line(self, progress: Progress, now: float) -> str:
        """Return a line if there is news, else nothing."""
        since_s, gained = now - self.said_at, progress.done_bytes - self.said_bytes
        worth_it = gained > 0 and gained * 100 >= progress.total_bytes
        if since_s < LINE_MIN_S or not (worth_it or since_s >= LINE_MAX_S):
            return ""
        self.said_at, self.said_bytes = now, progress.done_bytes
        return progress.describe(now)


def format_left(seconds: float) -> str:
    """Return a time to wait, in the two units that matter."""
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
