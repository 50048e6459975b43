"""Books: what was counted is there, whoever is killed, and exactly once."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.usage import Account, Price, RequestEnd, Usage, UsageRecord
from tramontane.metering import books as module
from tramontane.metering.books import (
    LINES,
    OPEN,
    Arrival,
    Books,
    from_line,
    is_written,
    read_account,
    read_cut,
    read_lines,
    to_line,
)

ACCOUNT = Account(
    instance="ins_1",
    project="p",
    service="s",
    digest="sha256:0",
    cell="c",
    price=Price(prompt=150_000_000, completion=600_000_000),
)
ARRIVAL = Arrival(request_id="r", key="tok_1", model="m", api="chat.completions", at=100.0)


def lines_of(directory: Path) -> list[UsageRecord]:
    with (directory / f"ins_1{LINES}").open("rb") as file:
        found = read_account(file)
        assert found is not None
        assert found[0] == ACCOUNT
        records, after = read_lines(file, *found, 1000)
        assert after == file.seek(0, 2)
    return records


def cut_of(directory: Path) -> list[UsageRecord]:
    ended = frozenset(each.sequence for each in lines_of(directory))
    return list(read_cut(directory / f"ins_1{OPEN}", ACCOUNT, ended))


def test_a_request_is_in_the_books_from_its_first_token_to_its_end(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    entry = books.begin(ARRIVAL)
    books.count(entry, Usage(prompt_tokens=10), 100.5)
    books.count(entry, Usage(prompt_tokens=10, completion_tokens=1, cached_tokens=4), 101.0)
    books.count(entry, Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=4), 102.0)
    # As whoever comes after a kill would find it now:
    (cut,) = cut_of(tmp_path)
    assert cut.end is RequestEnd.CUT
    assert cut.usage == Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=4)
    assert (cut.first_token_s, cut.key, cut.model, cut.request_id) == (1.0, "tok_1", "m", "r")
    record = books.end(entry, RequestEnd.FINISHED, 200, 103.0)
    assert lines_of(tmp_path) == [record]
    assert cut_of(tmp_path) == []
    assert (record.first_token_s, record.duration_s) == (1.0, 3.0)
    assert record.cost == (10 * 150_000_000 + 2 * 600_000_000) // 1_000_000


def test_killed_between_the_line_and_its_row_it_counts_once(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    entry = books.begin(ARRIVAL)
    table = tmp_path / f"ins_1{OPEN}"
    before = table.read_bytes()
    record = books.end(entry, RequestEnd.FINISHED, 200, 103.0)
    books.close()
    table.write_bytes(before)
    assert lines_of(tmp_path) == [record]
    assert cut_of(tmp_path) == []


def test_whoever_writes_is_known_to_be_alive(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    assert is_written(tmp_path / f"ins_1{OPEN}")
    books.close()
    assert not is_written(tmp_path / f"ins_1{OPEN}")


def test_a_table_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_MAX", 2)
    books = Books(tmp_path, ACCOUNT)
    first, second = books.begin(ARRIVAL), books.begin(ARRIVAL)
    assert books.is_full()
    books.end(first, RequestEnd.ABORTED, 0, 101.0)
    third = books.begin(ARRIVAL)
    assert third.sequence > second.sequence
    assert [each.sequence for each in cut_of(tmp_path)] == [third.sequence, second.sequence]


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    entry = books.begin(ARRIVAL)
    record = books.end(entry, RequestEnd.FINISHED, 200, 103.0)
    books.close()
    path = tmp_path / f"ins_1{LINES}"
    whole = path.read_bytes()
    for cut in range(len(whole) - len(to_line(record)), len(whole)):
        path.write_bytes(whole[:cut])
        with path.open("rb") as file:
            found = read_account(file)
            assert found is not None
            assert read_lines(file, *found, 10) == ([], found[1])
    path.write_bytes(whole)
    assert lines_of(tmp_path) == [record]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(TEXT, TEXT, st.integers(0, 2**32 - 1), st.sampled_from(RequestEnd))
def test_any_record_comes_back(model: str, key: str, tokens: int, end: RequestEnd) -> None:
    record = UsageRecord(
        instance="ins_1",
        sequence=7,
        request_id="r",
        key=key,
        project="p",
        service="s",
        model=model,
        digest="sha256:0",
        cell="c",
        api="completions",
        at=1.5,
        first_token_s=None,
        duration_s=0.25,
        status=200,
        end=end,
        usage=Usage(prompt_tokens=tokens),
    )
    assert from_line(to_line(record), ACCOUNT) == record
    assert to_line(replace(record, cost=1)).count(b"\n") == 1


def test_names_of_any_length_fit_into_a_row(tmp_path: Path) -> None:
    books = Books(tmp_path, ACCOUNT)
    long = "é" * 500
    books.begin(replace(ARRIVAL, model=long, key=long, request_id=long, api=long))
    (cut,) = cut_of(tmp_path)
    assert cut.model == "é" * 32
