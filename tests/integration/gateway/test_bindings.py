"""The way from a service's instances to their models, and the keys that they have."""

import asyncio
import os
import time

import httpx
import pytest

from tests.integration.gateway.bed import PATIENCE_S, Bed, asleep, awake, until
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import AliasRoute, Choice, EgressRoute, Refusal

pytestmark = pytest.mark.timeout(60)


def bind(bed: Bed, *models: str, service: str = "svc_1") -> str:
    """Publish the ways out of a service that is bound to these models; return the socket."""
    socket = str(bed.directory / f"{service}.models")
    route = EgressRoute(
        service_id=service,
        project="p",
        service="app",
        socket=str(bed.directory / f"{service}.out"),
        rules=(EgressRule(host="api.example.com"),),
        models=models,
        models_socket=socket if models else "",
    )
    bed.egress[service] = route
    bed.gateway.publish_egress(route)
    return socket


def client(socket: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(uds=socket)
    return httpx.AsyncClient(transport=transport, base_url="http://models", timeout=PATIENCE_S)


async def ask(socket: str, model: str, path: str = "/v1/chat/completions", **options: object):
    async with client(socket) as connected:
        return await connected.post(path, json={"model": model}, **options)  # pyright: ignore[reportArgumentType]


def code(answer: httpx.Response) -> tuple[int, str]:
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    return answer.status_code, answer.json()["error"]["code"]


async def test_bound_models_answer_and_no_other(bed: Bed) -> None:
    servers = {name: await bed.serve(name) for name in ("chat", "embed", "other")}
    for name, server in servers.items():
        bed.publish(name, awake(f"{name}@1", server), model=name, key_required=True)
    socket = bind(bed, "chat", "embed", "later")
    await bed.applied()
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings"):
        for name in ("chat", "embed"):
            headers = {"authorization": "Bearer whatever", "x-tramontane-key": "forged"}
            assert (await ask(socket, name, path, headers=headers)).status_code == 200
        for name in ("other", "later", "none"):
            assert code(await ask(socket, name, path)) == (404, "model_not_found")
    assert servers["other"].seen == []
    assert all("authorization" not in each.headers for each in servers["chat"].seen)
    assert {each.headers["x-tramontane-key"] for each in servers["chat"].seen} == {"svc_1"}
    async with client(socket) as connected:
        listing = (await connected.get("/v1/models")).json()
        assert [each["id"] for each in listing["data"]] == ["chat", "embed"]
        assert (await connected.get("/v1/models/chat")).json()["id"] == "chat"
        assert code(await connected.get("/v1/models/other")) == (404, "model_not_found")
    lines = await bed.log_lines(1)
    assert (lines[0]["key"], lines[0]["service"], lines[0]["model"]) == ("svc_1", "chat", "chat")


async def test_an_alias_leads_its_bound_service_along_its_chain(bed: Bed) -> None:
    socket = bind(bed, "assistant")
    good = await bed.serve("good")
    bed.publish("first", Refusal(status=503, code="paused", message="it is paused"), model="first")
    bed.publish("second", awake("second@1", good), model="second")
    await bed.applied()
    assert code(await ask(socket, "assistant")) == (404, "model_not_found")
    choice = Choice(chain=("first", "second"))
    bed.gateway.publish_alias(AliasRoute(project="p", alias="assistant", choices=(choice,)))
    await bed.applied()
    for forged in ({}, {"x-tramontane-alias": "other", "x-envoy-attempt-count": "7"}):
        answer = await ask(socket, "assistant", headers=forged)
        assert answer.status_code == 200
        assert answer.headers["x-tramontane-service"] == "second"
    assert {each.headers["x-tramontane-key"] for each in good.seen} == {"svc_1"}
    assert code(await ask(socket, "second")) == (404, "model_not_found"), "it is bound to the alias"
    async with client(socket) as connected:
        listing = (await connected.get("/v1/models")).json()
        assert [each["id"] for each in listing["data"]] == ["assistant"]
    bed.gateway.remove_alias("p", "assistant")
    await bed.applied()
    assert code(await ask(socket, "assistant")) == (404, "model_not_found")


async def test_a_model_that_comes_later_answers_then(bed: Bed) -> None:
    socket = bind(bed, "chat")
    await bed.applied()
    assert code(await ask(socket, "chat")) == (404, "model_not_found")
    bed.publish("chat", awake("chat@1", await bed.serve("a")), model="chat")
    await bed.applied()
    assert (await ask(socket, "chat")).status_code == 200
    bed.gateway.remove_service("p", "chat")
    await bed.applied()
    assert code(await ask(socket, "chat")) == (404, "model_not_found")


async def test_a_bound_model_that_sleeps_wakes(bed: Bed) -> None:
    bed.publish("chat", asleep("chat@1"), model="chat")
    socket = bind(bed, "chat")
    await bed.applied()
    asked = asyncio.ensure_future(ask(socket, "chat"))
    assert await bed.woken() == "chat@1"
    server = await bed.serve("a")
    bed.publish("chat", awake("chat@1", server), model="chat")
    assert (await asked).status_code == 200
    # It falls asleep and is woken once more: under another name, as for everybody.
    bed.publish("chat", asleep("chat@2"), model="chat")
    await bed.applied()
    again = asyncio.ensure_future(ask(socket, "chat"))
    assert await bed.woken() == "chat@2"
    bed.publish("chat", awake("chat@2", server), model="chat")
    assert (await again).status_code == 200


async def test_nothing_else_is_behind_it(bed: Bed) -> None:
    secret = await bed.serve("a")
    bed.publish("web", awake("web@1", secret))
    bed.publish("chat", awake("chat@1", await bed.serve("b")), model="chat")
    socket = bind(bed, "chat")
    await bed.applied()
    async with client(socket) as connected:
        for host in ("web.p.localhost", "chat.p.localhost", "localhost", "127.0.0.1"):
            for path in ("/", "/api/v1/services", "/v2", "/v1/files"):
                answer = await connected.get(path, headers={"host": host})
                assert code(answer) == (404, "not_found")
        absolute = await connected.get("http://web.p.localhost/")
        assert code(absolute) == (404, "not_found")
    assert secret.seen == []
    assert (await asyncio.to_thread(os.stat, socket)).st_mode & 0o777 == 0o600


async def test_bindings_change_and_end(bed: Bed) -> None:
    for name in ("one", "two"):
        bed.publish(name, awake(f"{name}@1", await bed.serve(name)), model=name)
    socket = bind(bed, "one")
    await bed.applied()
    bind(bed, "two")
    await bed.applied()
    assert code(await ask(socket, "one")) == (404, "model_not_found")
    assert (await ask(socket, "two")).status_code == 200
    bind(bed)
    await bed.applied()

    async def gone() -> bool:
        try:
            await ask(socket, "two")
        except httpx.TransportError:
            return True
        return False

    async with asyncio.timeout(PATIENCE_S):
        while not await gone():
            await asyncio.sleep(0.05)


async def test_a_key_of_an_instance_ends_with_its_service(bed: Bed) -> None:
    bed.publish("one", awake("one@1", await bed.serve("a")), model="one", key_required=True)
    await bed.applied()
    key = bed.signer.key(models=["one"], service="svc_1", exp=int(time.time()) + 600)
    assert code(await bed.infer({"model": "one"}, key=key)) == (401, "key_revoked")
    bind(bed, "one")
    bind(bed, "one", service="svc_2")
    await bed.applied()
    assert (await bed.infer({"model": "one"}, key=key)).status_code == 200
    assert code(await bed.infer({"model": "two"}, key=key)) == (404, "model_not_found")
    bed.gateway.remove_egress("svc_1")
    await bed.applied()
    assert code(await bed.infer({"model": "one"}, key=key)) == (401, "key_revoked")
    assert (await bed.infer({"model": "one"}, key=bed.signer.key())).status_code == 200


async def test_another_control_plane_takes_bindings_over(bed: Bed) -> None:
    bed.publish("one", awake("one@1", await bed.serve("a")), model="one")
    socket = bind(bed, "one")
    await bed.applied()
    await bed.gateway.close()
    assert (await ask(socket, "one")).status_code == 200, "without any"
    await bed.restart_gateway()
    await until(bed.gateway.is_connected)
    await bed.applied()
    assert (await ask(socket, "one")).status_code == 200
    key = bed.signer.key(models=["one"], service="svc_1")
    assert (await bed.infer({"model": "one"}, key=key)).status_code == 200
    assert bed.rejections == []
