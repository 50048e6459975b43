"""``tram usage``: what a finance person and a platform engineer see."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.unit.cli.fake import Tram


def make_sum(group: dict[str, str], **changes: object) -> dict[str, Any]:
    return {
        "group": group,
        "key_name": None,
        "requests": 1234,
        "not_finished": 3,
        "prompt_tokens": 1_000_000,
        "cached_tokens": 250_000,
        "completion_tokens": 65_432,
        "cost_eur": "12.345678901",
        "first_token_s": 0.25,
        **changes,
    }


def make_usage(by: list[str], *sums: dict[str, Any], **total: object) -> dict[str, Any]:
    return {
        "since": 0.0,
        "until": None,
        "by": by,
        "sums": list(sums),
        "total": make_sum({}, **total),
    }


def make_request(**changes: object) -> dict[str, Any]:
    return {
        "at": 1700000000.123,
        "request_id": "req-1",
        "project": "shop",
        "service": "tiny",
        "model": "tiny",
        "digest": "sha256:aa",
        "key": "tok_1",
        "key_name": "ci",
        "api": "chat.completions",
        "cell": "local",
        "instance": "ins_1",
        "status": 200,
        "end": "finished",
        "prompt_tokens": 12,
        "cached_tokens": 4,
        "completion_tokens": 30,
        "first_token_s": 0.0123,
        "duration_s": 1.5,
        "cost_eur": "0.000001234",
        **changes,
    }


TABLE = """\
MODEL  REQUESTS  UNFINISHED     PROMPT   CACHED  COMPLETION  FIRST TOKEN   COST (EUR)
tiny      1,234           3  1,000,000  250,000      65,432      0.250 s  12.34567890
large         2           0         10        0           0            -   0.00000123
sum       1,236           3  1,000,010  250,000      65,432      0.250 s  12.34568014
"""


def test_table_ends_with_the_sum(tram: Tram) -> None:
    small = make_sum(
        {"model": "large"},
        requests=2,
        not_finished=0,
        prompt_tokens=10,
        cached_tokens=0,
        completion_tokens=0,
        cost_eur="0.000001234",
        first_token_s=None,
    )
    total = {"requests": 1236, "prompt_tokens": 1_000_010, "cost_eur": "12.345680135"}
    answer = make_usage(["model"], make_sum({"model": "tiny"}), small, **total)
    tram.api.on("GET", "usage", answer)
    result = tram("usage")
    assert (result.code, result.out) == (0, TABLE)
    query = dict(tram.api.calls[0].query)
    assert query == {"since": repr(tram.clock.now() - 30 * 86400), "by": "model"}


def test_amounts_show_two_digits_at_least(tram: Tram) -> None:
    sums = make_sum({"model": "tiny"}, cost_eur="1234.500000000")
    tram.api.on("GET", "usage", make_usage(["model"], sums, cost_eur="1234.500000000"))
    assert tram("usage").out.splitlines()[1].endswith("1,234.50")
    free = make_sum({"model": "tiny"}, cost_eur="0.000000000")
    tram.api.on("GET", "usage", make_usage(["model"], free, cost_eur="0.000000000"))
    assert tram("usage").out.splitlines()[1].endswith(" 0.00")


def test_keys_have_names_and_ids(tram: Tram) -> None:
    sums = [
        make_sum({"key": "tok_1", "project": "shop"}, key_name="ci\x1b[31m"),
        make_sum({"key": "tok_2", "project": "shop"}),
        make_sum({"key": "", "project": "shop"}),
    ]
    tram.api.on("GET", "usage", make_usage(["key", "project"], *sums))
    lines = tram("usage", "--by", "key", "--by", "project").out.splitlines()
    starts = [line.partition("  ")[0] for line in lines]
    assert starts == ["KEY", "ci [31m (tok_1)", "tok_2", "none", "sum"]


def test_csv_has_the_same_columns_whatever_is_in_it(tram: Tram) -> None:
    evil = make_sum({"key": "tok_1", "model": "=HYPERLINK(1)"}, key_name='a "b", c')
    tram.api.on("GET", "usage", make_usage(["key", "model"], evil))
    text = tram("usage", "--by", "key", "--by", "model", "-o", "csv").out
    (row,) = csv.DictReader(io.StringIO(text))
    assert list(row) == [
        *("key", "key_name", "model", "requests", "not_finished", "prompt_tokens"),
        *("cached_tokens", "completion_tokens", "cost_eur", "first_token_s"),
    ]
    assert (row["key_name"], row["cost_eur"]) == ('a "b", c', "12.345678901")
    assert row["model"] == "'=HYPERLINK(1)", "no formula for a spreadsheet"
    tram.api.on("GET", "usage", make_usage(["model"]))
    assert tram("usage", "-o", "csv").out.count("\n") == 1


def test_requests_of_all_pages(tram: Tram) -> None:
    pages = {
        None: {"requests": [make_request()], "next": "7"},
        "7": {
            "requests": [make_request(end="refused", status=400, key="", first_token_s=None)],
            "next": None,
        },
    }
    tram.api.on("GET", "usage/requests", lambda call: pages[dict(call.query).get("cursor")])
    table = tram("usage", "--requests").out.splitlines()
    assert table[1] == (
        "2023-11-14 22:13:20Z  shop/tiny  ci (tok_1)  chat.completions  finished         12"
        "       4          30      0.012 s   1.500 s  0.00000123"
    )
    assert "  none        chat.completions  refused 400  " in table[2]
    assert dict(tram.api.calls[0].query)["since"] == repr(tram.clock.now() - 86400)
    rows = list(csv.DictReader(io.StringIO(tram("usage", "--requests", "-o", "csv").out)))
    assert [each["at"] for each in rows] == ["2023-11-14T22:13:20.123Z"] * 2
    assert (rows[1]["first_token_s"], rows[1]["status"]) == ("", "400")
    document = json.loads(tram("usage", "--requests", "-o", "json").out)
    assert len(document["requests"]) == 2
    assert document["requests"][0] == make_request()


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2026-11", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-24", datetime(2026, 11, 24, tzinfo=UTC)),
        ("2026-11-24T08:30", datetime(2026, 11, 24, 8, 30, tzinfo=UTC)),
        ("2026-11-24T08:30+02:00", datetime(2026, 11, 24, 6, 30, tzinfo=UTC)),
    ],
)
def test_moments(tram: Tram, text: str, day: datetime) -> None:
    tram.api.on("GET", "usage", make_usage(["model"]))
    result = tram("usage", "--since", "7d", "--until", text)
    assert result.out == "no requests in this time\n"
    query = dict(tram.api.calls[0].query)
    assert query["since"] == repr(tram.clock.now() - 7 * 86400)
    assert query["until"] == repr(day.timestamp())


@pytest.mark.parametrize("text", ["yesterday", "2026-13", "2026", "", "1969-12-31"])
def test_no_moment(tram: Tram, text: str) -> None:
    result = tram("usage", "--since", text)
    assert result.code == 2
    assert "expected a d" in result.err


def test_single_requests_are_not_added_up(tram: Tram) -> None:
    assert tram("usage", "--requests", "--by", "model").code == 2


def test_filters_are_passed_on(tram: Tram) -> None:
    tram.api.on("GET", "usage", make_usage(["day"]))
    tram("usage", "-p", "shop", "--service", "tiny", "--key", "tok_1", "--by", "day")
    query = tram.api.calls[0].query
    wanted = {("project", "shop"), ("service", "tiny"), ("key", "tok_1"), ("by", "day")}
    assert wanted <= set(query)
