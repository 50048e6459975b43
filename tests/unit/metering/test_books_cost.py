"""What the books say a request cost, also when nobody could close them."""

from dataclasses import replace
from pathlib import Path

from tramontane.domain.usage import NANO, Account, Price, RequestEnd, Usage
from tramontane.metering.books import (
    OPEN,
    Arrival,
    Books,
    from_line,
    read_cut,
    read_open_keys,
    to_line,
)

ACCOUNT = Account(
    instance="ins_1",
    project="shop",
    service="chat",
    digest="sha256:aa",
    cell="cel_1",
    price=Price(hour=3600 * NANO),
)
"""A euro per second, to be read off."""


def arrival(at: float) -> Arrival:
    return Arrival(request_id="r", key="", model="chat", api="completions", at=at)


def test_requests_at_the_same_time_share_the_hour(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    first, second = books.begin(arrival(0.0)), books.begin(arrival(0.0))
    assert first is not None
    assert second is not None
    assert books.end(first, RequestEnd.FINISHED, 200, 4.0).cost == 2 * NANO
    assert books.end(second, RequestEnd.FINISHED, 200, 5.0).cost == 3 * NANO
    books.close()


def test_a_request_that_was_cut_costs_what_was_counted(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    entry = books.begin(arrival(0.0))
    assert entry is not None
    books.count(entry, Usage(prompt_tokens=9, completion_tokens=1), 1.5)
    books.close()
    (cut,) = read_cut(tmp_path / f"ins_1{OPEN}", ACCOUNT, frozenset())
    assert (cut.end, cut.cost) == (RequestEnd.CUT, 1_500_000_000)
    assert (cut.usage.prompt_tokens, cut.first_token_s) == (9, 1.5)


def test_keys_of_what_is_under_way_are_found(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    entries = [books.begin(replace(arrival(0.0), key=f"tok_{i}")) for i in range(3)]
    books.count(entries[0], Usage(prompt_tokens=9, completion_tokens=1), 1.5)
    books.end(entries[1], RequestEnd.FINISHED, 200, 2.0)
    assert read_open_keys(tmp_path / f"ins_1{OPEN}") == ["tok_0", "tok_2"]
    books.close()


def test_where_a_request_stands_in_a_trace_is_kept(tmp_path: Path) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    books = Books(tmp_path, ACCOUNT)
    ended = books.begin(replace(arrival(0.0), traceparent=trace))
    books.begin(replace(arrival(0.0), traceparent=trace))
    record = books.end(ended, RequestEnd.FINISHED, 200, 1.0)
    assert record.traceparent == trace
    assert from_line(to_line(record), ACCOUNT) == record
    books.close()
    (cut,) = read_cut(tmp_path / f"ins_1{OPEN}", ACCOUNT, frozenset({ended.sequence}))
    assert cut.traceparent == trace
