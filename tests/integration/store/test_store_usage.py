"""The ledger in both databases: once, in order, added up."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sqlalchemy import text
from tests.usage_records import RECORD, keep, make_record

from tramontane.domain.usage import RequestEnd, Usage
from tramontane.store import upgrade
from tramontane.store.database import Database, parse_url, sqlite_url
from tramontane.store.store import Store, open_store
from tramontane.store.usage import BookPosition, UsageQuery

ALL = UsageQuery()
DAY = 86_400.0


def test_records_are_read_back_in_the_order_of_their_coming(store: Store) -> None:
    first = make_record(1, instance="ins_2", at=9.0)
    second = make_record(1, instance="ins_1", at=5.0, first_token_s=None, end=RequestEnd.CUT)
    keep(store, first, second)
    assert store.list_usage(ALL, limit=10) == [first, second]
    assert [each.position for each in store.list_usage(ALL, limit=10)] == [1, 2]
    assert store.list_usage(ALL, limit=1) == [first]
    assert store.list_usage(ALL, limit=10, after=1) == [second]
    assert store.list_usage(ALL, limit=10, after=2) == []


def test_a_book_read_by_somebody_else_is_not_taken_twice(store: Store) -> None:
    assert store.add_usage("ins_1", [RECORD], 0, BookPosition(position=10))
    assert not store.add_usage("ins_1", [make_record(2)], 0, BookPosition(position=10))
    assert store.list_usage(ALL, limit=10) == [RECORD]


def test_who_reads_on_misses_nothing_while_others_write(store: Store) -> None:
    """A reader that has seen a position has seen all before it, however writers overlap."""

    def write(instance: str) -> None:
        keep(store, *(make_record(i, instance=instance) for i in range(1, 41)))

    seen: list[int] = []
    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, f"ins_{i}") for i in range(4)]
        while len(seen) < 160:
            after = seen[-1] if seen else 0
            seen += [each.position for each in store.list_usage(ALL, limit=1000, after=after)]
            for each in writers:
                if each.done():
                    each.result()
    assert seen == list(range(1, 161))


def test_sums_are_exact_and_by_what_was_asked(store: Store) -> None:
    keep(
        store,
        make_record(1, at=DAY - 0.001, cost=10**17 + 1),
        make_record(2, at=DAY, cost=10**17 + 2, first_token_s=0.75),
        make_record(3, at=DAY + 1, model="other", first_token_s=None, end=RequestEnd.REFUSED),
        make_record(4, at=2 * DAY, project="lab", usage=Usage()),
    )
    (everything,) = store.sum_usage(ALL, ())
    assert (everything.requests, everything.not_finished) == (4, 1)
    assert everything.cost == 2 * 10**17 + 3 + 2 * RECORD.cost
    assert everything.usage == Usage(prompt_tokens=300, completion_tokens=60, cached_tokens=120)
    assert (everything.first_tokens, everything.first_token_s) == (3, (0.25 + 0.75 + 0.25) / 3)
    by_day = store.sum_usage(ALL, ("day",))
    assert [(each.group["day"], each.requests) for each in by_day] == [
        ("1970-01-01", 1),
        ("1970-01-02", 2),
        ("1970-01-03", 1),
    ]
    by_two = store.sum_usage(ALL, ("model", "project"))
    assert [tuple(each.group.values()) for each in by_two] == [
        ("chat", "shop"),
        ("other", "shop"),
        ("chat", "lab"),
    ]
    query = UsageQuery(project="shop", service="chat", key="tok_1", since=DAY, until=DAY + 1)
    assert [each.requests for each in store.sum_usage(query, ())] == [1]
    assert store.sum_usage(UsageQuery(project="nobody's"), ()) == []


def test_an_older_ledger_is_numbered_by_arrival(database: Path | str) -> None:
    store = open_store(database)
    keep(store, make_record(1, at=7.0), make_record(2, at=5.0), make_record(3, at=6.0))
    store.close()
    opened = Database(sqlite_url(database) if isinstance(database, Path) else parse_url(database))
    with opened.write() as connection:  # as step 9 left it
        connection.execute(text("DROP TABLE usage_totals"))
        connection.execute(text("ALTER TABLE usage DROP COLUMN traceparent"))
        connection.execute(text("DROP INDEX ix_usage_position"))
        connection.execute(text("ALTER TABLE usage DROP COLUMN position"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0009'"))
    upgrade.upgrade(opened)
    opened.close()
    store = open_store(database)
    assert [each.at for each in store.list_usage(ALL, limit=9)] == [5.0, 6.0, 7.0]
    keep(store, make_record(4))
    assert store.list_usage(ALL, limit=9)[-1].position == 4
    store.close()


def test_totals_grow_with_the_ledger_and_survive_a_restart(database: Path | str) -> None:
    store = open_store(database)
    assert store.read_usage_totals() == {}
    keep(store, make_record(1), make_record(2, project="lab"))
    # What somebody else has taken over already is not counted again.
    assert not store.add_usage("ins_1", [make_record(9)], 0, BookPosition(position=1))
    store.close()
    store = open_store(database)
    keep(store, make_record(3, end=RequestEnd.CUT, status=0))
    totals = store.read_usage_totals()
    assert {key: each.ends for key, each in totals.items()} == {
        ("lab", "chat"): {"finished/200": 1},
        ("shop", "chat"): {"finished/200": 1, "cut/0": 1},
    }
    assert totals["shop", "chat"].cost == 2 * RECORD.cost
    assert store.read_usage_totals("lab") == {("lab", "chat"): totals["lab", "chat"]}
    store.close()
