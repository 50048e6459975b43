"""How an instance's time is shared: nothing is charged twice, and nobody pays for idleness."""

from hypothesis import given
from hypothesis import strategies as st

from tramontane.metering.sharing import Sharing


def test_who_is_alone_has_all_of_it() -> None:
    sharing = Sharing()
    first = sharing.begin(10.0)
    assert sharing.share_s(first, 12.0) == 2.0
    assert sharing.end(first, 13.0) == 3.0
    second = sharing.begin(100.0)  # what was idle is nobody's
    assert sharing.end(second, 101.0) == 1.0


def test_who_is_there_at_the_same_time_shares() -> None:
    sharing = Sharing()
    first = sharing.begin(0.0)
    second = sharing.begin(4.0)
    assert sharing.end(first, 6.0) == 5.0
    assert sharing.end(second, 7.0) == 2.0


def test_a_clock_set_back_takes_nothing_away() -> None:
    sharing = Sharing()
    first = sharing.begin(10.0)
    assert sharing.share_s(first, 12.0) == 2.0
    assert sharing.share_s(first, 5.0) == 2.0
    assert sharing.end(first, 13.0) == 3.0


STEPS = st.lists(
    st.tuples(st.integers(0, 1000), st.booleans(), st.integers(0, 20)), min_size=1, max_size=60
)


@given(STEPS)
def test_shares_add_up_to_the_time_in_which_there_was_any_request(
    steps: list[tuple[int, bool, int]],
) -> None:
    sharing, now, busy, total = Sharing(), 0.0, 0.0, 0.0
    running: list[float] = []
    for pause, begins, which in steps:
        busy += pause if running else 0
        now += pause
        if begins or not running:
            running.append(sharing.begin(now))
        else:
            total += sharing.end(running.pop(which % len(running)), now)
    total += sum(sharing.share_s(each, now) for each in running)
    assert abs(total - busy) < 1e-6 * max(busy, 1)
