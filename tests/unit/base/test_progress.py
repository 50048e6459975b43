"""How far a fetch is, in lines that come when there is news."""

from itertools import pairwise

import pytest

from tramontane.base.progress import Progress, Reporter, format_left

MIB = 1024**2


def test_a_line_says_how_much_how_fast_and_how_long_still() -> None:
    progress = Progress(total_bytes=400 * MIB, started_at=0.0)
    progress.update(100 * MIB, 1.0)
    progress.update(120 * MIB, 3.0)
    assert progress.describe(3.0) == ("fetching: 120 MiB of 400 MiB (30 %), 10 MiB/s, 28 s left")
    progress.update(400 * MIB, 30.0)
    assert progress.describe(30.0) == "checking 400 MiB"


def test_what_an_earlier_run_left_came_at_no_rate_and_a_standstill_is_said() -> None:
    progress = Progress(total_bytes=400 * MIB, started_at=0.0)
    assert "nothing comes at present" in progress.describe(0.5)
    progress.update(300 * MIB, 1.0)
    assert progress.describe(2.0).endswith("(75 %), nothing comes at present")


def test_the_rate_is_that_of_late() -> None:
    progress = Progress(total_bytes=1000 * MIB, started_at=0.0)
    for second in range(100):
        progress.update(min(second, 50) * 10 * MIB, float(second))
    assert progress.rate(99.0) == 0
    progress.update(520 * MIB, 100.0)
    assert progress.rate(100.0) == pytest.approx(2 * MIB, rel=0.2)


def test_lines_come_with_percents_but_never_every_moment() -> None:
    progress = Progress(total_bytes=100 * MIB, started_at=0.0)
    reporter = Reporter(said_at=0.0)
    lines: list[float] = []
    for tenth in range(1, 600):
        now = tenth / 10
        progress.update(tenth * MIB // 6, now)
        if reporter.next_line(progress, now):
            lines.append(now)
    gaps = [later - before for before, later in pairwise(lines)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= 2.0
    reporter.next_line(progress, 61.0)
    assert reporter.next_line(progress, 70.9) == ""
    assert reporter.next_line(progress, 71.0)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "1 s"), (59, "59 s"), (125, "2 min 5 s"), (7380, "2 h 3 min")]
)
def test_a_time_to_wait_is_said_in_two_units(seconds: float, text: str) -> None:
    assert format_left(seconds) == text
