"""Inference under /v1: keys, models, usage, large bodies, all by Envoy alone."""

import asyncio
import json
import time
from dataclasses import replace

import pytest

from tests.integration.gateway.bed import Bed, Exchange, asleep, awake, make_bed
from tests.integration.gateway.keys import Signer
from tramontane.domain.route import Refusal

pytestmark = pytest.mark.timeout(60)


def code(answer) -> str:
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.json()["error"]["code"]


async def test_model_in_the_body_chooses_the_upstream(bed: Bed) -> None:
    one, two = await bed.serve("a"), await bed.serve("b")
    bed.publish("one", awake("one@1", one), model="mistral-one")
    bed.publish("two", awake("two@1", two), model="org/two")
    await bed.applied()
    key = bed.signer.key()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        answer = await bed.infer({"model": "org/two"}, key=key, path=path)
        assert answer.status_code == 200, answer.text
    assert (await bed.infer({"model": "mistral-one"}, key=key)).status_code == 200
    assert [len(one.seen), len(two.seen)] == [1, 3]
    assert all("authorization" not in exchange.headers for exchange in one.seen + two.seen)
    line = (await bed.log_lines(4))[-1]
    assert (line["key"], line["model"], line["service"]) == ("key_1", "mistral-one", "one")


async def test_a_sleeping_model_wakes(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", asleep("one@1"), model="one")
    await bed.applied()
    asked = asyncio.ensure_future(bed.infer({"model": "one"}, key=bed.signer.key()))
    assert await bed.woken() == "one@1"
    bed.publish("one", awake("one@1", server), model="one")
    assert (await asked).status_code == 200


async def test_failed_start_of_a_model_in_openai_shape(bed: Bed) -> None:
    bed.publish("one", asleep("one@1"), model="one")
    await bed.applied()
    asked = asyncio.ensure_future(bed.infer({"model": "one"}, key=bed.signer.key()))
    await bed.woken()
    refusal = Refusal(status=503, code="start_failed", message="out of memory", retry_after_s=3)
    bed.publish("one", refusal, model="one")
    answer = await asked
    assert (answer.status_code, code(answer)) == (503, "start_failed")
    await bed.applied()
    later = await bed.infer({"model": "one"}, key=bed.signer.key())
    assert (later.status_code, code(later), later.headers["retry-after"]) == (
        503,
        "start_failed",
        "3",
    )


async def test_refusals_in_openai_shape(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", awake("one@1", server), model="one")
    await bed.applied()
    key, body = bed.signer.key(), {"model": "one"}
    answers = {
        "missing": await bed.infer(body, key=None),
        "other signer": await bed.infer(body, key=Signer().key()),
        "other issuer": await bed.infer(body, key=bed.signer.key(issuer="x")),
        "garbage": await bed.infer(body, key="tram_garbage"),
        "no prefix": await bed.infer(body, key=key.removeprefix("tram_")),
    }
    for answer in answers.values():
        assert (answer.status_code, code(answer)) == (401, "invalid_api_key")
    other = await bed.infer(body, key=bed.signer.key(project="other"))
    unknown = await bed.infer({"model": "none"}, key=key)
    for answer in (other, unknown, await bed.infer({}, key=key), await bed.infer([1], key=key)):
        assert (answer.status_code, code(answer)) == (404, "model_not_found")
    assert server.seen == []


async def test_a_key_for_some_models_calls_no_other(bed: Bed) -> None:
    servers = {name: await bed.serve(name) for name in ("one", "two", "three")}
    for name, server in servers.items():
        bed.publish(name, awake(f"{name}@1", server), model=name, key_required=True)
    await bed.applied()
    key = bed.signer.key(models=["one", "three"])
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        for name in ("one", "three"):
            assert (await bed.infer({"model": name}, key=key, path=path)).status_code == 200
        refused = await bed.infer({"model": "two"}, key=key, path=path)
        unknown = await bed.infer({"model": "none"}, key=key, path=path)
        assert (refused.status_code, code(refused)) == (404, "model_not_found")
        assert refused.json() == unknown.json(), "it does not learn that there is one"
    elsewhere = bed.signer.key(project="other", models=["one"])
    assert (await bed.infer({"model": "one"}, key=elsewhere)).status_code == 404
    nothing = bed.signer.key(models=[])
    assert (await bed.infer({"model": "one"}, key=nothing)).status_code == 404
    assert servers["two"].seen == []


async def test_a_key_for_some_models_on_their_own_hosts(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", awake("one@1", server), model="one", key_required=True)
    await bed.applied()
    for path in ("/v1/chat/completions", "/v1/embeddings", "/"):

        async def ask(asked: str = path, **claims: object):
            headers = {"authorization": f"Bearer {bed.signer.key(**claims)}"}  # pyright: ignore[reportArgumentType]
            return await bed.ask("one", asked, content=b'{"model":"one"}', headers=headers)

        assert (await ask(models=["two", "one"])).status_code == 200
        refused = await ask(models=["two"])
        assert (refused.status_code, refused.json()["error"]) == (
            403,
            {"code": "forbidden", "message": "this key is for other models"},
        )
        other = await ask(models=["one"], project="other")
        assert other.json()["error"]["message"] == "this key is of another project"
    assert len(server.seen) == 3


async def test_a_key_for_some_models_is_shown_those(bed: Bed) -> None:
    for name in ("one", "two", "three"):
        bed.publish(name, asleep(f"{name}@1"), model=f"org/{name}")
    await bed.applied()
    async with bed.client() as client:

        async def get(path: str, **claims: object):
            headers = {"authorization": f"Bearer {bed.signer.key(**claims)}"}  # pyright: ignore[reportArgumentType]
            return await client.get(path, headers=headers)

        whole = (await get("/v1/models")).json()
        assert len(whole["data"]) == 3
        some = await get("/v1/models", models=["org/two", "org/one", "gone"])
        assert some.headers["content-type"] == "application/json"
        assert some.json() == {
            **whole,
            "data": [each for each in whole["data"] if each["id"] != "org/three"],
        }
        assert (await get("/v1/models", models=[])).json() == {**whole, "data": []}
        assert (await get("/v1/models", models=["org/two"], project="other")).json()["data"] == []
        assert (await get("/v1/models/org/two", models=["org/two"])).json()["id"] == "org/two"
        refused = await get("/v1/models/org/one", models=["org/two"])
        unknown = await get("/v1/models/org/none", models=["org/two"])
        assert (refused.status_code, code(refused)) == (404, "model_not_found")
        assert refused.json() == unknown.json()


async def test_an_expired_key_says_so(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", awake("one@1", server), model="one", key_required=True)
    await bed.applied()
    now = int(time.time())
    lasting, expired = bed.signer.key(exp=now + 600), bed.signer.key(exp=now - 10)
    assert (await bed.infer({"model": "one"}, key=lasting)).status_code == 200
    answer = await bed.infer({"model": "one"}, key=expired)
    assert (answer.status_code, code(answer)) == (401, "key_expired")
    assert answer.json()["error"]["type"] == "invalid_request_error"
    headers = {"authorization": f"Bearer {expired}"}
    answer = await bed.ask("one", "/v1/completions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_expired")
    assert len(server.seen) == 1


async def test_revoked_keys(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", awake("one@1", server), model="one")
    await bed.applied()
    bed.revoked = frozenset({"key_2", "key_3"})
    bed.gateway.publish_trust(bed.trust)
    await bed.applied()
    good, bad = bed.signer.key(jti="key_1"), bed.signer.key(jti="key_2")
    assert (await bed.infer({"model": "one"}, key=good)).status_code == 200
    answer = await bed.infer({"model": "one"}, key=bad)
    assert (answer.status_code, code(answer)) == (401, "key_revoked")


async def test_a_key_whose_budget_is_spent_wakes_nothing(bed: Bed) -> None:
    bed.publish("one", asleep("one@1"), model="one")
    await bed.applied()
    bed.gateway.publish_trust(replace(bed.trust, spent=frozenset({"key_2"})))
    await bed.applied()
    spent = bed.signer.key(jti="key_2")
    answer = await bed.infer({"model": "one"}, key=spent)
    assert (answer.status_code, code(answer)) == (429, "budget_spent")
    assert int(answer.headers["retry-after"]) > 0
    assert bed.wakes.empty()
    async with bed.client() as client:
        headers = {"authorization": f"Bearer {spent}"}
        listing = await client.get("/v1/models", headers=headers)
        assert [model["id"] for model in listing.json()["data"]] == ["one"]


async def test_models_are_listed_per_project(bed: Bed) -> None:
    for name in ("one", "two"):
        bed.publish(name, asleep(f"{name}@1"), model=f"org/{name}")
    await bed.applied()
    async with bed.client() as client:

        async def get(path: str, project: str):
            headers = {"authorization": f"Bearer {bed.signer.key(project=project)}"}
            return await client.get(path, headers=headers)

        listing = (await get("/v1/models", "p")).json()
        assert [model["id"] for model in listing["data"]] == ["org/one", "org/two"]
        assert (await get("/v1/models", "other")).json()["data"] == []
        assert (await get("/v1/models/org/two", "p")).json()["id"] == "org/two"
        assert code(await get("/v1/models/org/two", "other")) == "model_not_found"
        assert (await client.get("/v1/models")).status_code == 401


async def test_streams_pass_as_they_come_and_whatever_is_in_them(bed: Bed) -> None:
    """Envoy 1.40 ends with a segmentation fault where it is to read such events."""

    async def engine(exchange: Exchange) -> None:
        await exchange.body()
        exchange.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        exchange.writer.write(b'data: 1\n\ndata: null\n\ndata: "x"\n\ndata: first\n\n')
        await exchange.writer.drain()
        await first_seen.wait()
        exchange.writer.write(b"data: [DONE]\n\n")
        await exchange.writer.drain()
        exchange.writer.close()

    first_seen = asyncio.Event()
    server = await bed.serve("a", engine)
    bed.publish("one", awake("one@1", server), model="one")
    await bed.applied()
    async with (
        bed.client() as client,
        client.stream(
            "POST",
            "/v1/chat/completions",
            json={"model": "one", "stream": True},
            headers={"authorization": f"Bearer {bed.signer.key()}"},
        ) as answer,
    ):
        chunks = answer.aiter_bytes()
        assert b"first" in await anext(chunks)  # arrives before the stream ends
        first_seen.set()
        assert b"[DONE]" in b"".join([chunk async for chunk in chunks])
    (line,) = await bed.log_lines(1)
    assert (line["code"], line["model"]) == (200, "one")


async def test_bodies_up_to_the_limit_and_over() -> None:
    async with make_bed(body_max_bytes=12 * 1024 * 1024) as bed:
        await bed.start()
        server = await bed.serve("a")
        bed.publish("one", asleep("one@1"), model="one")
        await bed.applied()
        body = {"messages": "x" * (11 * 1024 * 1024), "model": "one"}
        asked = asyncio.ensure_future(bed.infer(body, key=bed.signer.key()))
        await bed.woken()
        bed.publish("one", awake("one@1", server), model="one")
        answer = await asked
        assert answer.status_code == 200
        assert answer.json()["length"] == len(json.dumps(body, separators=(",", ":")))
        body["messages"] = "x" * (13 * 1024 * 1024)
        answer = await bed.infer(body, key=bed.signer.key())
        assert (answer.status_code, code(answer)) == (413, "body_too_large")


async def test_large_answers_arrive(bed: Bed) -> None:
    async def engine(exchange: Exchange) -> None:
        await exchange.body()
        await exchange.answer(b'{"x":"' + b"x" * size + b'"}', kind="application/json")

    server = await bed.serve("a", engine)
    bed.publish("one", awake("one@1", server), model="one")
    await bed.applied()
    for path, size in (("/v1/chat/completions", 5_000_000), ("/v1/embeddings", 50_000_000)):
        answer = await bed.infer({"model": "one"}, key=bed.signer.key(), path=path)
        assert len(answer.content) == size + 8
        answer = await bed.ask("one", path, content=b'{"model":"one"}')
        assert len(answer.content) == size + 8


async def test_a_models_own_host_with_a_key(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("one", awake("one@1", server), model="one", key_required=True)
    await bed.applied()
    path, body = "/v1/chat/completions", b"{}"
    missing = await bed.ask("one", path, content=body)
    assert (missing.status_code, missing.json()["error"]["code"]) == (401, "invalid_api_key")
    headers = {"authorization": f"Bearer {bed.signer.key(project='other')}"}
    other = await bed.ask("one", path, content=body, headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (403, "forbidden")
    assert server.seen == []
    headers = {"authorization": f"Bearer {bed.signer.key()}"}
    assert (await bed.ask("one", path, content=body, headers=headers)).status_code == 200
    assert "authorization" not in server.seen[0].headers


async def test_an_app_sees_its_own_credentials_but_no_platform_key(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    await bed.ask("web", headers={"authorization": "Bearer the-apps-own"})
    assert server.seen[-1].headers["authorization"] == "Bearer the-apps-own"
    await bed.ask("web", headers={"authorization": f"Bearer {bed.signer.key()}"})
    assert "authorization" not in server.seen[-1].headers
    bed.revoked = frozenset({"key_1"})
    bed.gateway.publish_trust(bed.trust)
    await bed.applied()
    answer = await bed.ask("web", headers={"authorization": f"Bearer {bed.signer.key()}"})
    assert answer.json()["error"]["code"] == "key_revoked"


async def test_files_reach_the_control_plane_with_who_asks(bed: Bed) -> None:
    server = await bed.serve("files.sock")
    forged = {"x-tramontane-project": "other", "x-tramontane-key": "forged"}
    async with bed.client() as client:
        for path in ("/v1/files", "/v1/files/file_1/content", "/v1/batches", "/v1/batch/jobs/b"):
            headers = {**forged, "authorization": f"Bearer {bed.signer.key(project='lab')}"}
            said = (await client.get(f"{path}?limit=1", headers=headers)).json()
            assert said["path"] == f"{path}?limit=1"
            assert said["headers"]["x-tramontane-project"] == "lab"
            assert said["headers"]["x-tramontane-key"] == "key_1"
            assert "authorization" not in said["headers"]
        assert len(server.seen) == 4
        assert (await client.get("/v1/files", headers=forged)).status_code == 401
        assert (await client.get("/v1/filesystem", headers=forged)).status_code == 404
        assert len(server.seen) == 4


async def test_a_file_larger_than_any_buffer_is_carried(bed: Bed) -> None:
    await bed.serve("files.sock")
    body = b"x" * (bed.options.body_max_bytes + 1)
    headers = {"authorization": f"Bearer {bed.signer.key()}"}
    async with bed.client() as client:
        said = (await client.post("/v1/files", content=body, headers=headers)).json()
    assert said["length"] == len(body)


async def test_refusals_of_batches_have_each_api_s_shape(bed: Bed) -> None:
    headers = {"authorization": f"Bearer {bed.signer.key()}"}
    async with bed.client() as client:
        away = await client.get("/v1/batches", headers=headers)
        assert (away.status_code, code(away)) == (503, "control_plane_unavailable")
        for answer, status, name in (
            (await client.get("/v1/batch/jobs", headers=headers), 503, "control_plane_unavailable"),
            (await client.get("/v1/batch/jobs"), 401, "invalid_api_key"),
        ):
            said = answer.json()
            assert (answer.status_code, said["raw_status_code"], said["code"]) == (
                status,
                status,
                name,
            )
            assert said["object"] == "error"
