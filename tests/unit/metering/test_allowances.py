"""The table of keys with limits: what holds while it changes, whoever is killed meanwhile."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tramontane.domain.limits import Limits, OverLimit
from tramontane.metering.allowances import Allowances, Gate, KeyUse, Table

NOW = 1_000.0
STREAMS = Limits(streams=2)


@pytest.fixture
def allowances(tmp_path: Path) -> Iterator[Allowances]:
    opened = Allowances(tmp_path)
    yield opened
    opened.close()


def hold(allowances: Allowances, *keys: str) -> None:
    with allowances.held():
        allowances.publish(dict.fromkeys(keys, STREAMS), NOW)


def begin(gate: Gate, key: str) -> OverLimit | None:
    with gate.turn(key) as turn:
        return turn.admit(NOW)


def running(allowances: Allowances, key: str) -> int | None:
    standing = allowances.standing(key)
    return None if standing is None else standing.running


def test_keys_that_come_and_go_leave_others_where_they_stand(
    allowances: Allowances, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    hold(allowances, "b", "d")
    assert begin(gate, "d") is None
    hold(allowances, "a", "c", "d", "e")
    assert begin(gate, "d") is None
    assert begin(gate, "d") is not None
    assert [running(allowances, key) for key in "abcde"] == [0, None, 0, 2, 0]
    hold(allowances, "e")
    assert begin(gate, "d") is None, "whose limits were taken away has none"
    hold(allowances, "d", "e")
    assert running(allowances, "d") == 0, "and begins anew when it has some again"


@pytest.mark.parametrize("killed_after", range(5))
def test_a_kill_while_keys_are_published_takes_nothing_from_anybody(
    allowances: Allowances, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    hold(allowances, "b", "c", "d")
    with allowances.held():
        uses = {"d": KeyUse(running=2)}
        allowances.publish(dict.fromkeys("bcd", STREAMS), NOW, uses)
    left = killed_after
    write = Table.write

    def killed(table: Table, row: int, *rest: object) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(table, row, *rest)  # pyright: ignore[reportArgumentType]

    with monkeypatch.context() as patched:
        patched.setattr(Table, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            hold(allowances, "a", "c", "d", "e")
    gate = Gate(tmp_path)
    assert running(allowances, "c") == 0
    assert running(allowances, "d") == 2
    assert begin(gate, "d") is not None, "the limit holds"
    hold(allowances, "a", "c", "d", "e")
    assert [running(allowances, key) for key in "abcde"] == [0, None, 0, 2, 0]


def test_one_thread_waits_for_the_other(allowances: Allowances) -> None:
    entered = threading.Event()
    other = threading.Thread(target=lambda: (hold(allowances, "a"), entered.set()))
    with allowances.held():
        other.start()
        assert not entered.wait(0.05), "two threads hold what one may"
    other.join(10)
    assert entered.is_set()
