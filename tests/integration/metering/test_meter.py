"""The meter before the real engine: what it writes down is what the engine counted."""

import asyncio
import json
import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.integration.engines.serving import Engine, serving
from tests.integration.metering.bed import (
    LONG,
    QUESTION,
    Bed,
    ClientConnection,
    metered,
    tokens_in,
    until,
)
from tramontane.domain.usage import RequestEnd
from tramontane.plan.sizing import Sizing

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def engine(tmp_path: Path, sizing: Sizing) -> Iterator[Engine]:
    model = Path(str(files("tramontane.engines").joinpath("models/tiny.gguf")))
    with serving(model, sizing, tmp_path) as running:
        yield running


def busy_slots(engine: Engine) -> int:
    return sum(bool(slot["is_processing"]) for slot in engine.ask("/slots"))


def engine_counts(engine: Engine) -> int:
    """Return how many tokens the engine says it made, of requests that came to their end."""
    connection = engine.text("/metrics")
    line = next(
        each
        for each in connection.splitlines()
        if each.startswith("llamacpp:tokens_predicted_total")
    )
    return int(float(line.split()[1]))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": QUESTION}),
        (CHAT, {"messages": QUESTION, "logprobs": True, "n": 2}),
        (COMPLETIONS, {"prompt": "Paris", "max_tokens": 5}),
        ("/v1/responses", {"input": "What is the capital of France?"}),
        ("/v1/embeddings", {"input": ["Paris", "Rome and more"]}),
    ],
)
async def test_every_api_is_counted_as_the_client_is_told(
    engine: Engine, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    async with metered(engine.address, tmp_path) as bed:
        client = await bed.connect()
        status, raw = await client.ask(path, {"model": "tiny"} | body)
        assert status == 200, raw
        told = json.loads(raw)["usage"]
        record = await bed.record_of(client)
        assert record.usage.prompt_tokens == told.get("prompt_tokens", told.get("input_tokens"))
        answered = told.get("completion_tokens", told.get("output_tokens", 0))
        assert record.usage.completion_tokens == answered
        assert (record.end, record.status) == (RequestEnd.FINISHED, 200)
        assert (record.key, record.project, record.model) == ("tok_1", "p", "tiny")
        if path == "/v1/embeddings":
            return
        streamed = await bed.connect()
        status, raw = await streamed.ask(path, {"model": "tiny", "stream": True} | body)
        assert status == 200, raw
        again = await bed.record_of(streamed)
        assert again.usage.prompt_tokens == record.usage.prompt_tokens
        if "n" not in body:
            assert again.usage.completion_tokens == tokens_in(raw)
        assert again.first_token_s is not None


async def test_nothing_of_the_engine_is_reached_uncounted(engine: Engine, tmp_path: Path) -> None:
    async with metered(engine.address, tmp_path) as bed:
        client = await bed.connect()
        for path in ("/slots", "/completion", "/metrics", "/props", "/v1/models", "/infill"):
            assert (await client.ask(path, {}))[0] == 404
            assert (await client.ask(path, {}, method="GET"))[0] == 404
        assert bed.records() == []


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_costs_what_was_made_for_it(
    engine: Engine, tmp_path: Path, *, stream: bool
) -> None:
    async with metered(engine.address, tmp_path) as bed:
        client = await bed.connect()
        await client.send(COMPLETIONS, LONG | {"stream": stream})
        await until(lambda: any(e.usage.completion_tokens > 3 for e in bed.under_way()))
        client.cut()
        record = await bed.record_of(client)
        assert record.end is RequestEnd.ABORTED
        assert 3 < record.usage.completion_tokens < LONG["max_tokens"]
        await until(lambda: busy_slots(engine) == 0)


async def test_what_cannot_be_stopped_half_way_is_counted_whole(
    engine: Engine, tmp_path: Path
) -> None:
    async with metered(engine.address, tmp_path) as bed:
        client = await bed.connect()
        await client.send("/v1/embeddings", {"input": ["Paris and Rome " * 60] * 40})
        await until(lambda: bed.meter.way.link.running == 1)
        client.cut()
        record = await bed.record_of(client)
        assert record.end is RequestEnd.ABORTED
        assert record.usage.prompt_tokens > 40


async def test_an_engine_that_is_killed_leaves_its_counts(engine: Engine, tmp_path: Path) -> None:
    async with metered(engine.address, tmp_path) as bed:
        streaming, waiting = await bed.connect(), await bed.connect()
        await streaming.send(COMPLETIONS, LONG | {"stream": True})
        await waiting.send(COMPLETIONS, LONG)
        await streaming.read_head()
        seen = tokens_in(await streaming.read_piece())
        await until(lambda: len(bed.under_way()) == 2)
        await until(lambda: all(e.usage.completion_tokens > 3 for e in bed.under_way()))
        os.kill(engine.pid, signal.SIGKILL)
        status, _ = await waiting.read_head()
        assert status == 503
        with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while piece := await streaming.read_piece():
                seen = max(seen, tokens_in(piece))
            pytest.fail("a stream that was cut must not look like one that ended")
        cut = await bed.record_of(streaming)
        assert cut.end is RequestEnd.CUT
        assert cut.usage.completion_tokens >= seen > 0
        assert (await bed.record_of(waiting)).end is RequestEnd.CUT


DEEP = "[" * 100_000
SENSELESS = {
    "an answer too deep to read": ("/v1/embeddings", "application/json", DEEP, 200),
    "an event that is no JSON": (CHAT, "text/event-stream", "data: {\n\n", 503),
    "an event too deep to read": (CHAT, "text/event-stream", f"data: {DEEP}\n\n", 503),
}


@pytest.mark.parametrize(
    ("path", "content_type", "answer", "status"), SENSELESS.values(), ids=SENSELESS
)
async def test_answers_without_sense_end_their_request_and_no_other(
    tmp_path: Path, path: str, content_type: str, answer: str, status: int
) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
        lines = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
        writer.write(f"{lines}content-length: {len(answer)}\r\n\r\n{answer}".encode())
        await writer.drain()
        writer.close()

    address = str(tmp_path / "engine.sock")
    async with await asyncio.start_unix_server(say, address), metered(address, tmp_path) as bed:
        for _ in range(2):
            client = await bed.connect()
            found, _ = await client.ask(path, {"messages": QUESTION, "input": "x"})
            assert found == status
            await bed.record_of(client)
        assert bed.meter.way.books.open_count == 0
        assert bed.meter.way.link.running == 0


async def test_more_requests_than_the_engine_takes_wait_for_their_turn(
    engine: Engine, tmp_path: Path
) -> None:
    async with metered(engine.address, tmp_path, requests_max=3) as bed:

        async def one() -> int:
            client = await bed.connect()
            return (await client.ask(CHAT, {"messages": QUESTION, "max_tokens": 8}))[0]

        gone = [await bed.connect() for _ in range(5)]
        for each in gone:
            await each.send(COMPLETIONS, LONG)
        asked = [asyncio.create_task(one()) for _ in range(150)]
        await until(lambda: bed.meter.way.link.queued > 100)
        for each in gone:
            each.cut()  # some of them while they wait
        assert set(await asyncio.gather(*asked)) == {200}
        await until(lambda: bed.meter.way.books.open_count == 0)
        assert bed.meter.way.link.running == 0
        assert len(bed.records()) == 155


async def test_requests_of_every_fate_are_counted_once_and_as_the_engine_does(
    engine: Engine, tmp_path: Path
) -> None:
    dice = random.Random(7)
    told: dict[str, int] = {}
    seen: dict[str, int] = {}

    async def live(bed: Bed) -> None:
        client = await bed.connect()
        for _ in range(12):
            fate = dice.choice(["whole", "stream", "cut", "cut", "bad"])
            body = {"prompt": "Paris", "max_tokens": dice.randrange(1, 60), "ignore_eos": True}
            if fate == "bad":
                status, _ = await client.ask(COMPLETIONS, {"prompt": {"no": "prompt"}})
                assert status >= 400
            elif fate == "whole":
                status, raw = await client.ask(COMPLETIONS, body)
                assert status == 200
                told[client.request_id] = json.loads(raw)["usage"]["completion_tokens"]
            elif fate == "stream":
                _, raw = await client.ask(COMPLETIONS, body | {"stream": True})
                told[client.request_id] = tokens_in(raw)
            else:
                await cut_off(client, body)
                client = await bed.connect()

    async def cut_off(client: ClientConnection, body: dict[str, Any]) -> None:
        await client.send(COMPLETIONS, LONG | {"prompt": body["prompt"], "stream": True})
        await client.read_head()
        for _ in range(dice.randrange(1, 6)):
            seen[client.request_id] = tokens_in(await client.read_piece())
        client.cut()

    async with metered(engine.address, tmp_path) as bed:
        before = engine_counts(engine)
        await asyncio.gather(*(live(bed) for _ in range(25)))
        await until(lambda: bed.meter.way.books.open_count == 0)
        records = {each.request_id: each for each in bed.records()}
        assert len(records) == len(bed.records()) == 25 * 12
        for request_id, tokens in told.items():
            assert records[request_id].usage.completion_tokens == tokens
        for request_id, tokens in seen.items():
            assert records[request_id].end is RequestEnd.ABORTED
            assert records[request_id].usage.completion_tokens >= tokens
        finished = [each for each in records.values() if each.end is RequestEnd.FINISHED]
        made = sum(each.usage.completion_tokens for each in records.values())
        # Before it finds a client gone, it makes a token or two of which it tells nobody.
        untold = engine_counts(engine) - before - made
        assert 0 <= untold <= 2 * (len(records) - len(finished))
