"""From the books of instances into the ledger: every record once, whoever is killed when."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tramontane.base.clock import SystemClock
from tramontane.domain.limits import Limits
from tramontane.domain.usage import Account, RequestEnd, Usage, UsageRecord
from tramontane.metering.allowances import Allowances
from tramontane.metering.books import LINES, OPEN, Arrival, Books
from tramontane.reconcile.ledger import LedgerReconciler, UsageMemory
from tramontane.store.store import Store
from tramontane.store.usage import BookPosition, UsageQuery

ACCOUNT = Account(instance="ins_1", project="p", service="s", digest="sha256:0", cell="c")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "ledger"
    made.mkdir()
    return made


def collector(store: UsageMemory, directory: Path) -> LedgerReconciler:
    return LedgerReconciler(
        store=store,
        directory=directory,
        allowances=Allowances(directory.with_name("limits")),
        clock=SystemClock(),
        on_spent=lambda _: None,
    )


def write(books: Books, count: int, *, key: str = "tok_1", ended: bool = True) -> None:
    for number in range(count):
        entry = books.begin(
            Arrival(request_id=f"r{number}", key=key, model="m", api="completions", at=10.0)
        )
        books.count(entry, Usage(prompt_tokens=3, completion_tokens=2, cached_tokens=1), 11.0)
        if ended:
            books.end(entry, RequestEnd.FINISHED, 200, 12.0)


def ledger(store: Store) -> list[UsageRecord]:
    return store.list_usage(UsageQuery(), limit=10_000)


def test_what_ended_is_taken_over_while_its_writer_lives(store: Store, directory: Path) -> None:
    reconciler = collector(store, directory)
    books = Books(directory, ACCOUNT)
    reconciler.look()
    write(books, 2500)
    reconciler.look()
    assert [each.sequence for each in ledger(store)] == list(range(1, 2501))
    write(books, 1)
    write(books, 1, ended=False)
    reconciler.look()
    reconciler.look()
    assert len(ledger(store)) == 2501
    books.close()


def test_what_was_under_way_is_taken_over_as_cut_and_the_files_go(
    store: Store, directory: Path
) -> None:
    reconciler = collector(store, directory)
    books = Books(directory, ACCOUNT)
    write(books, 2)
    write(books, 3, ended=False)
    books.close()  # as when its writer is killed: the kernel lets go of the lock
    reconciler.look()
    ends = [each.end for each in ledger(store)]
    assert sorted(ends) == [RequestEnd.CUT] * 3 + [RequestEnd.FINISHED] * 2
    assert {each.usage.completion_tokens for each in ledger(store)} == {2}
    assert list(directory.iterdir()) == []
    reconciler.look()
    assert store.list_closed_books() == []
    assert len(ledger(store)) == 5


def test_a_book_whose_writer_was_killed_before_it_had_begun_goes(
    store: Store, directory: Path
) -> None:
    reconciler = collector(store, directory)
    for name in (OPEN, LINES):
        (directory / f"ins_1{name}").write_bytes(b"")
    reconciler.look()
    assert list(directory.iterdir()) == []


def test_a_book_that_cannot_be_read_is_complained_of_once(
    store: Store, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reconciler = collector(store, directory)
    (directory / f"ins_1{OPEN}").write_bytes(b"")
    (directory / f"ins_1{LINES}").write_bytes(b"not a book\n")
    books = Books(directory, replace(ACCOUNT, instance="ins_2"))
    reconciler.look()
    write(books, 1)
    reconciler.look()
    books.close()
    assert [each.getMessage().partition(":")[0] for each in caplog.records] == [
        "cannot read the book of ins_1"
    ]
    assert len(ledger(store)) == 1, "others are read nevertheless"
    assert (directory / f"ins_1{LINES}").exists(), "it is kept for whoever can"


@dataclass
class Mortal:
    """A store whose user is killed after so many calls that change something."""

    store: Store
    lives: int
    calls: list[str] = field(default_factory=list)

    def _live(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) > self.lives:
            raise KeyboardInterrupt

    def get_book_position(self, instance: str) -> BookPosition:
        return self.store.get_book_position(instance)

    def list_closed_books(self) -> list[str]:
        return self.store.list_closed_books()

    def add_usage(
        self, instance: str, records: Sequence[UsageRecord], before: int, after: BookPosition
    ) -> bool:
        self._live("before")
        done = self.store.add_usage(instance, records, before, after)
        self._live("after")
        return done

    def list_limits(self) -> Mapping[str, Limits]:
        return self.store.list_limits()

    def sum_costs(self, keys: Collection[str], since: float) -> dict[str, int]:
        return self.store.sum_costs(keys, since)

    def forget_book(self, instance: str) -> None:
        self._live("before")
        self.store.forget_book(instance)
        self._live("after")


@pytest.mark.parametrize("lives", range(9))
def test_killed_at_any_step_nothing_is_lost_or_there_twice(
    store: Store, directory: Path, lives: int
) -> None:
    books = Books(directory, ACCOUNT)
    write(books, 1500)
    write(books, 4, ended=False)
    books.close()
    for turn in (lives, lives % 2):
        with suppress(KeyboardInterrupt):
            collector(Mortal(store, turn), directory).look()
    reconciler = collector(store, directory)
    reconciler.look()
    reconciler.look()
    assert len(ledger(store)) == 1504
    assert list(directory.iterdir()) == []
    assert store.list_closed_books() == []


def test_a_book_that_cannot_be_read_holds_up_no_other(store: Store, directory: Path) -> None:
    (directory / f"ins_0{LINES}").write_bytes(b"\0\0\0\n")
    (directory / f"ins_0{OPEN}").touch()
    (directory / f"ins_00{LINES}").touch()  # and one without a table
    books = Books(directory, ACCOUNT)
    write(books, 1)
    collector(store, directory).look()
    assert len(ledger(store)) == 1
    books.close()


def test_sums_are_of_what_was_asked_for(store: Store) -> None:
    record = UsageRecord(
        instance="ins_1",
        sequence=1,
        request_id="r",
        key="tok_1",
        project="p",
        service="s",
        model="m",
        digest="d",
        cell="c",
        api="completions",
        at=10.0,
        first_token_s=0.5,
        duration_s=1.0,
        status=200,
        end=RequestEnd.FINISHED,
        usage=Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=1),
        cost=7,
    )
    other = replace(record, sequence=2, key="tok_2", at=20.0, first_token_s=None)
    third = replace(record, sequence=3, project="q", end=RequestEnd.ABORTED)
    assert store.add_usage("ins_1", [record, other, third], 0, BookPosition(position=5))
    assert not store.add_usage("ins_1", [record], 0, BookPosition(position=9)), "somebody else did"
    by_key = store.sum_usage(UsageQuery(project="p"), ["key"])
    assert [(each.group, each.requests, each.cost) for each in by_key] == [
        ({"key": "tok_1"}, 1, 7),
        ({"key": "tok_2"}, 1, 7),
    ]
    (whole,) = store.sum_usage(UsageQuery(), [])
    assert (whole.requests, whole.usage.prompt_tokens, whole.not_finished) == (3, 30, 1)
    assert whole.first_token_s == pytest.approx(0.5)
    assert store.sum_usage(UsageQuery(since=20.0, until=21.0), ["model"])[0].requests == 1
    assert store.sum_usage(UsageQuery(since=30.0), []) == []
    assert [each.sequence for each in store.list_usage(UsageQuery(), limit=2)] == [1, 2]
    assert [each.sequence for each in store.list_usage(UsageQuery(), limit=2, after=2)] == [3]
