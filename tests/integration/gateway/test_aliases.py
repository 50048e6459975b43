"""Aliases under /v1: shares, canaries, chains of models that sleep or fail, and time limits."""

import asyncio
import json
import time
from collections import Counter

import httpx
import pytest

from tests.integration.gateway.bed import Bed, Exchange, Handler, asleep, awake, until
from tramontane.domain.route import LOTS, Choice, Refusal

pytestmark = pytest.mark.timeout(60)


def chain(*services: str, header: tuple[str, str] | None = None, percent: int = 100) -> Choice:
    return Choice(chain=services, header=header, lots=LOTS * percent // 100)


def says(word: str, status: int = 200) -> Handler:
    async def answer(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(word.encode(), status=status)

    return answer


async def hang(exchange: Exchange) -> None:
    await exchange.body()
    await asyncio.sleep(3600)


def chunked(end: Handler) -> Handler:
    """Answer one event in chunks, so that the end can be told from a break, then ``end``."""

    async def answer(exchange: Exchange) -> None:
        await exchange.body()
        exchange.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\na\r\ndata: {}\n\n\r\n"
        )
        await exchange.writer.drain()
        await asyncio.sleep(0.05)
        await end(exchange)

    return answer


async def abort(exchange: Exchange) -> None:
    exchange.writer.transport.abort()


async def forever(exchange: Exchange) -> None:
    await asyncio.sleep(3600)


async def ask(bed: Bed, alias: str = "assistant", **options) -> httpx.Response:
    body = {"model": alias, **options.pop("body", {})}
    return await bed.infer(body, key=bed.signer.key(), **options)


async def test_an_alias_is_a_model_in_every_respect(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("small", awake("small@1", server), model="small")
    bed.publish_alias("assistant", chain("small"))
    await bed.applied()
    key = bed.signer.key()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        answer = await ask(bed, path=path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-tramontane-service"] == "small"
    seen = server.seen[0].headers
    assert not {"authorization", "x-tramontane-alias", "x-envoy-attempt-count"} & set(seen)
    async with bed.client() as client:
        headers = {"authorization": f"Bearer {key}"}
        listing = (await client.get("/v1/models", headers=headers)).json()
        assert [each["id"] for each in listing["data"]] == ["small", "assistant"]
        card = (await client.get("/v1/models/assistant", headers=headers)).json()
        assert card["id"] == "assistant"
    for name in ("small", "assistant"):
        elsewhere = await bed.infer({"model": name}, key=key, path="/v1/tokenize")
        assert (elsewhere.status_code, elsewhere.json()["error"]["code"]) == (404, "not_found")
    missing = await bed.infer({"model": "assistant"}, key=None)
    assert missing.status_code == 401
    other = await bed.infer({"model": "assistant"}, key=bed.signer.key(project="other"))
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")
    line = (await bed.log_lines(3))[0]
    assert (line["alias"], line["served_by"], line["model"]) == ("assistant", "small", "assistant")


async def test_shares_and_a_canary(bed: Bed) -> None:
    for name in ("small", "large"):
        bed.publish(name, awake(f"{name}@1", await bed.serve(name, says(name))), model=name)
    bed.publish_alias(
        "assistant",
        chain("large", header=("x-canary", "yes")),
        chain("small", percent=80),
        chain("large"),
    )
    await bed.applied()
    async with bed.client() as client:
        headers = {"authorization": f"Bearer {bed.signer.key()}"}

        async def draw() -> str:
            answer = await client.post(
                "/v1/chat/completions", json={"model": "assistant"}, headers=headers
            )
            return answer.text

        counts = Counter([await draw() for _ in range(500)])
    assert 340 <= counts["small"] <= 460, counts
    assert counts["small"] + counts["large"] == 500
    for _ in range(10):
        assert (await ask(bed, headers={"x-canary": "yes"})).text == "large"


async def test_a_key_at_its_limit_wakes_no_other_model(bed: Bed) -> None:
    async def limited(exchange: Exchange) -> None:
        await exchange.body()
        exchange.writer.write(
            b"HTTP/1.1 429 X\r\nx-envoy-ratelimited: true\r\nretry-after: 7\r\n"
            b"content-length: 2\r\n\r\n{}"
        )
        await exchange.writer.drain()

    bed.publish("first", awake("first@1", await bed.serve("first", limited)), model="first")
    bed.publish("second", asleep("second@1"), model="second")
    bed.publish_alias("assistant", chain("first", "second"))
    await bed.applied()
    answer = await ask(bed)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert bed.wakes.empty()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_failing_model_is_replaced_by_the_next(bed: Bed, status: int) -> None:
    first = await bed.serve("a", says("sorry", status))
    bed.publish("small", awake("small@1", first), model="small")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b")), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    answer = await ask(bed, body={"messages": "x" * 2_000_000})
    assert answer.headers["x-tramontane-service"] == "tiny"
    assert answer.json()["length"] > 2_000_000
    assert len(first.seen) == 1


async def test_a_mistake_of_the_client_is_not_tried_elsewhere(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", says("no", 400))), model="small")
    second = await bed.serve("b")
    bed.publish("tiny", awake("tiny@1", second), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    assert (await ask(bed)).status_code == 400
    assert second.seen == []


async def test_a_body_as_large_as_may_be_is_sent_again(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", says("", 503))), model="small")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b")), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    answer = await ask(bed, body={"messages": "x" * (32 * 1024 * 1024 - 100)})
    assert answer.json()["length"] > 32 * 1024 * 1024 - 100


async def test_refused_dead_and_deleted_models_are_passed_over(bed: Bed) -> None:
    gone = await bed.serve("a")
    await gone.close()
    refusal = Refusal(status=503, code="paused", message="service paused is paused")
    bed.publish("paused", refusal, model="paused")
    bed.publish("dead", awake("dead@1", gone), model="dead")
    bed.publish("deleted", asleep("deleted@1"), model="deleted")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b", says("tiny"))), model="tiny")
    bed.publish_alias("assistant", chain("paused", "dead", "deleted", "tiny"))
    bed.gateway.remove_service("p", "deleted")
    await bed.applied()
    assert (await ask(bed)).text == "tiny"
    bed.publish_alias("assistant", chain("paused"))
    await bed.applied()
    last = await ask(bed)
    assert (last.status_code, last.json()["error"]["code"]) == (503, "paused")
    bed.publish_alias("assistant")
    await bed.applied()
    none = await ask(bed)
    assert (none.status_code, none.json()["error"]["code"]) == (503, "no_target")
    assert none.json()["error"]["type"] == "server_error"


async def test_the_whole_chain_sleeps(bed: Bed) -> None:
    bed.publish("small", asleep("small@1"), model="small")
    bed.publish("tiny", asleep("tiny@1"), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    body = {"messages": "x" * 3_000_000}
    asked = [asyncio.ensure_future(ask(bed, body=body)) for _ in range(10)]
    assert await bed.woken() == "small@1"
    bed.publish("small", Refusal(status=503, code="start_failed", message="boom"), model="small")
    assert await bed.woken() == "tiny@1"
    bed.publish("tiny", awake("tiny@1", await bed.serve("b")), model="tiny")
    for answer in await asyncio.gather(*asked):
        assert answer.headers["x-tramontane-service"] == "tiny"
        assert answer.json()["length"] > 3_000_000


async def test_a_start_that_takes_too_long_is_left_behind(bed: Bed) -> None:
    bed.publish("small", asleep("small@1"), model="small", deadline_s=0.3)
    bed.publish("tiny", awake("tiny@1", await bed.serve("b", says("tiny"))), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    assert (await ask(bed)).text == "tiny"


async def test_nothing_is_tried_again_once_the_answer_has_begun(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", chunked(abort))), model="small")
    second = await bed.serve("b")
    bed.publish("tiny", awake("tiny@1", second), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"))
    await bed.applied()
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(bed, body={"stream": True})
    assert second.seen == []


async def test_first_token(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", hang)), model="small")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b", says("tiny"))), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"), first_token_s=0.3)
    bed.publish_alias("alone", chain("small"), first_token_s=0.3)
    await bed.applied()
    assert (await ask(bed, body={"stream": True})).text == "tiny"
    late = await ask(bed, "alone", body={"stream": True})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "first_token_timed_out")
    # What is not streamed begins when it is complete: no limit holds for it.
    whole = asyncio.ensure_future(ask(bed, "alone"))
    await asyncio.sleep(0.6)
    assert not whole.done()
    whole.cancel()


async def test_a_long_answer_is_limited_by_nothing(bed: Bed) -> None:
    async def slowly(exchange: Exchange) -> None:
        for _ in range(8):
            await asyncio.sleep(0.2)
            exchange.writer.write(b"a\r\ndata: {}\n\n\r\n")
            await exchange.writer.drain()
        exchange.writer.write(b"0\r\n\r\n")
        await exchange.writer.drain()

    bed.publish("small", awake("small@1", await bed.serve("a", chunked(slowly))), model="small")
    bed.publish_alias("assistant", chain("small"), first_token_s=0.5, between_tokens_s=0.8)
    await bed.applied()
    answer = await ask(bed, body={"stream": True})
    assert answer.text.count("data") == 9


async def test_silence_between_tokens_ends_the_answer(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", chunked(forever))), model="small")
    second = await bed.serve("b", says("tiny"))
    bed.publish("tiny", awake("tiny@1", second), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"), between_tokens_s=0.4)
    await bed.applied()
    begun = time.monotonic()
    with pytest.raises(httpx.RemoteProtocolError):
        await ask(bed, body={"stream": True})
    assert time.monotonic() - begun < 10
    assert second.seen == []


async def test_silence_from_the_start_goes_on_in_the_chain(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", hang)), model="small")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b", says("tiny"))), model="tiny")
    bed.publish_alias("assistant", chain("small", "tiny"), between_tokens_s=0.3)
    await bed.applied()
    assert (await ask(bed, body={"stream": True})).text == "tiny"


async def test_changed_while_the_first_attempt_lasts(bed: Bed) -> None:
    first = await bed.serve("a", hang)
    bed.publish("small", awake("small@1", first), model="small")
    bed.publish("tiny", awake("tiny@1", await bed.serve("b", says("tiny"))), model="tiny")
    bed.publish("large", awake("large@1", await bed.serve("c", says("large"))), model="large")
    bed.publish_alias("assistant", chain("small", "tiny"), first_token_s=1.0)
    await bed.applied()
    asked = asyncio.ensure_future(ask(bed, body={"stream": True}))
    await until(lambda: len(first.seen) == 1)
    bed.publish_alias("assistant", chain("large"))
    await bed.applied()
    assert (await ask(bed)).text == "large"
    assert (await asked).text == "tiny"


async def test_nothing_is_lost_while_everything_moves(bed: Bed) -> None:
    """Targets sleep, wake and fail, and shares change, under a stream of requests."""
    servers = {name: await bed.serve(name, says(name)) for name in ("small", "large", "tiny")}
    generation = Counter[str]()

    def publish(name: str, *, up: bool) -> None:
        upstream = f"{name}@{generation[name]}"
        target = awake(upstream, servers[name]) if up else asleep(upstream)
        bed.publish(name, target, model=name, deadline_s=1.0)

    async def wake() -> None:
        while True:
            name = (await bed.wakes.get()).partition("@")[0]
            publish(name, up=True)
            woken.set()

    for name in servers:
        publish(name, up=True)
    bed.publish_alias("assistant", chain("small", "tiny", percent=50), chain("large", "tiny"))
    await bed.applied()
    woken = asyncio.Event()
    waking = asyncio.ensure_future(wake())
    async with bed.client() as client:
        headers = {"authorization": f"Bearer {bed.signer.key()}"}
        answers: list[httpx.Response] = []

        async def keep_asking() -> None:
            while not done.is_set():
                answers.append(
                    await client.post(
                        "/v1/chat/completions", json={"model": "assistant"}, headers=headers
                    )
                )

        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(keep_asking())
            for turn in range(60):
                name = ("small", "large")[turn % 2]
                generation[name] += 1
                woken.clear()
                publish(name, up=False)
                if turn % 5 == 0:
                    first, second = ("small", "large") if turn % 10 else ("large", "small")
                    bed.publish_alias(
                        "assistant", chain(first, "tiny", percent=30), chain(second, "tiny")
                    )
                await woken.wait()
                await bed.applied()
            done.set()
    waking.cancel()
    served = Counter(each.headers.get("x-tramontane-service") for each in answers)
    assert min(served["small"], served["large"]) > 20
    assert Counter(each.status_code for each in answers) == {200: len(answers)}


async def test_a_chain_is_not_reached_from_outside(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("small", awake("small@1", server), model="small", key_required=True)
    bed.publish_alias("assistant", chain("small"))
    await bed.applied()
    for headers in (
        {},
        {"x-tramontane-alias": "assistant"},
        {"x-tramontane-alias": "assistant", "x-envoy-attempt-count": "1"},
    ):
        async with bed.client() as client:
            answer = await client.post(
                "/v1/chat/completions",
                content=json.dumps({"model": "assistant"}),
                headers={"host": "small.p.chain.internal", **headers},
            )
        assert answer.status_code == 404
    assert server.seen == []


async def test_aliases_survive_a_restart_of_the_control_plane(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", says("small"))), model="small")
    bed.publish_alias("assistant", chain("small"))
    await bed.applied()
    await bed.restart_gateway()
    await bed.applied()
    assert (await ask(bed)).text == "small"
    bed.gateway.remove_alias("p", "assistant")
    await bed.applied()
    assert (await ask(bed)).status_code == 404


async def test_a_key_for_some_models_names_an_alias_like_a_model(bed: Bed) -> None:
    bed.publish("small", awake("small@1", await bed.serve("a", says("small"))), model="small")
    bed.publish_alias("assistant", chain("small"))
    await bed.applied()
    for models, statuses in ((["assistant"], [200, 404]), (["small"], [404, 200])):
        key = bed.signer.key(models=models)
        answers = [await bed.infer({"model": name}, key=key) for name in ("assistant", "small")]
        assert [each.status_code for each in answers] == statuses
        async with bed.client() as client:
            headers = {"authorization": f"Bearer {key}"}
            listing = (await client.get("/v1/models", headers=headers)).json()
            assert [each["id"] for each in listing["data"]] == models
