"""Limits of keys at the meter, with the real engine: refused beyond them, and not before."""

import asyncio
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engines.serving import Engine, serving
from tests.integration.metering.bed import KEY, LONG, QUESTION, Bed, metered, until
from tramontane.base.clock import SystemClock
from tramontane.domain.limits import Limits
from tramontane.domain.usage import Price
from tramontane.metering.allowances import Allowances, KeyUse
from tramontane.plan.sizing import Sizing

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ASKED = {"messages": QUESTION, "max_tokens": 8}
EURO = 10**9


@pytest.fixture
def engine(tmp_path: Path, sizing: Sizing) -> Iterator[Engine]:
    model = Path(str(files("tramontane.engines").joinpath("models/tiny.gguf")))
    with serving(model, sizing, tmp_path) as running:
        yield running


@pytest.fixture
def allowances(tmp_path: Path) -> Iterator[Allowances]:
    opened = Allowances(tmp_path)
    yield opened
    opened.close()


def hold(allowances: Allowances, limits: Limits, use: KeyUse | None = None) -> None:
    with allowances.held():
        uses = {KEY: use} if use is not None else None
        allowances.publish({KEY: limits}, SystemClock().now(), uses)


async def ask(bed: Bed, body: Any = ASKED) -> tuple[int, dict[str, str], Any]:
    client = await bed.connect()
    await client.send(CHAT, body)
    status, headers = await client.read_head()
    return status, headers, json.loads(await client.read_body(headers))


async def test_requests_per_minute(engine: Engine, tmp_path: Path, allowances: Allowances) -> None:
    async with metered(engine.address, tmp_path) as bed:
        assert (await ask(bed))[0] == 200, "without limits there is no end"
        hold(allowances, Limits(requests_per_minute=3))
        found = [await ask(bed) for _ in range(4)]
        assert [status for status, _, _ in found] == [200, 200, 200, 429]
        _, headers, body = found[-1]
        assert 1 <= int(headers["retry-after"]) <= 20
        assert headers["x-envoy-ratelimited"] == "true", "or an alias would go on to others"
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert "3 requests per minute" in body["error"]["message"]
        await until(lambda: bed.meter.way.books.open_count == 0)
        assert len(bed.records()) == 4, "what is refused used nothing"
        hold(allowances, Limits())
        assert (await ask(bed))[0] == 200


async def test_streams_are_counted_over_all_instances_of_the_machine(
    engine: Engine, tmp_path: Path, allowances: Allowances
) -> None:
    hold(allowances, Limits(streams=2))
    second = tmp_path / "second"
    second.mkdir()
    async with (
        metered(engine.address, tmp_path) as bed,
        metered(engine.address, second, gate=tmp_path) as other,
    ):
        clients = [await each.connect() for each in (bed, other)]
        for client in clients:
            await client.send(COMPLETIONS, LONG | {"stream": True})
            assert (await client.read_head())[0] == 200
        status, headers, body = await ask(other)
        assert (status, body["error"]["code"]) == (429, "too_many_streams")
        assert headers["retry-after"] == "1"
        clients[0].cut()
        await bed.record_of(clients[0])
        assert (await ask(other))[0] == 200


async def test_tokens_per_minute(engine: Engine, tmp_path: Path, allowances: Allowances) -> None:
    hold(allowances, Limits(tokens_per_minute=30))
    async with metered(engine.address, tmp_path) as bed:
        statuses = [(await ask(bed))[0] for _ in range(4)]
        used = sum(
            each.usage.prompt_tokens + each.usage.completion_tokens for each in bed.records()
        )
        assert statuses == [200, 200, 429, 429], f"{used} tokens were used"
        assert 30 <= used < 30 + 30


async def test_a_budget_is_overshot_by_responses_in_flight_alone(
    engine: Engine, tmp_path: Path, allowances: Allowances
) -> None:
    price = Price(prompt=EURO, completion=EURO)  # a euro per million tokens
    hold(allowances, Limits(budget=40_000))  # forty tokens
    async with metered(engine.address, tmp_path, price=price) as bed:

        async def go_on() -> int:
            good = 0
            while (await ask(bed))[0] == 200:
                good += 1
            return good

        good = sum(await asyncio.gather(*(go_on() for _ in range(4))))
        await until(lambda: bed.meter.way.books.open_count == 0)
        records = bed.records()
        assert len(records) == good
        spent = sum(each.cost for each in records)
        standing = allowances.standing(KEY)
        assert standing is not None
        assert (standing.spent, standing.running) == (spent, 0)
        # When the budget was reached, at most three others were on their way.
        dearest = sorted((each.cost for each in records), reverse=True)
        assert 40_000 <= spent < 40_000 + sum(dearest[:4])
        assert allowances.spent_keys(SystemClock().now()) == {KEY}
        status, headers, body = await ask(bed)
        assert (status, body["error"]["code"]) == (429, "budget_spent")
        assert 1 <= int(headers["retry-after"]) <= 86400


async def test_what_the_books_say_replaces_what_the_killed_left_behind(
    engine: Engine, tmp_path: Path, allowances: Allowances
) -> None:
    limits = Limits(streams=1, budget=10)
    hold(allowances, limits, KeyUse(running=1, spent=0))
    async with metered(engine.address, tmp_path) as bed:
        assert (await ask(bed))[2]["error"]["code"] == "too_many_streams"
        hold(allowances, limits, KeyUse(running=0, spent=10))
        assert (await ask(bed))[2]["error"]["code"] == "budget_spent"
        hold(allowances, limits, KeyUse(running=0, spent=9))
        assert (await ask(bed))[0] == 200
        others = {f"tok_{number:04}": Limits(streams=5) for number in range(3000)}
        with allowances.held():
            allowances.publish(others | {KEY: limits}, SystemClock().now())
        assert (await ask(bed))[0] == 200, "the table has grown under the meter"
        with allowances.held():
            allowances.publish({}, SystemClock().now())
        assert (await ask(bed))[0] == 200
