"""Requests for sleeping services: held by Envoy, served by the instance, never lost on the way."""

import asyncio
import base64
import dataclasses
import os

import pytest

from tests.integration.gateway.bed import Bed, Exchange, asleep, awake, until
from tramontane.domain.route import Refusal

pytestmark = pytest.mark.timeout(60)


async def test_many_requests_are_held_by_one_subscription_and_all_served(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    async with bed.client() as client, asyncio.TaskGroup() as tasks:
        held = [
            tasks.create_task(client.get(f"/{n}", headers={"host": "web.p.localhost"}))
            for n in range(200)
        ]
        assert await bed.woken() == "web@1"
        await held_count(bed, 200)
        bed.publish("web", awake("web@1", server))
    assert {task.result().status_code for task in held} == {200}
    assert len(server.seen) == 200
    assert bed.wakes.empty()


@pytest.mark.parametrize("size", [1, 1024 * 1024, 5 * 1024 * 1024])
async def test_held_bodies_arrive_whole(bed: Bed, size: int) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    body = os.urandom(size)
    asked = asyncio.ensure_future(bed.ask("web", "/upload?x=1", content=body))
    await bed.woken()
    await held_count(bed, 1)
    bed.publish("web", awake("web@1", server))
    answer = (await asked).json()
    assert (answer["length"], answer["sum"]) == (size, sum(body))
    assert answer["path"] == "/upload?x=1"


async def test_chunked_upload_to_a_sleeping_service(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()

    async def chunks():
        for _ in range(8):
            yield b"x" * 100_000
            await asyncio.sleep(0)

    asked = asyncio.ensure_future(bed.ask("web", content=chunks()))
    await bed.woken()
    bed.publish("web", awake("web@1", server))
    assert (await asked).json()["length"] == 800_000


async def test_websocket_to_a_sleeping_service(bed: Bed) -> None:
    async def talk(exchange: Exchange) -> None:
        assert exchange.headers["upgrade"] == "websocket"
        exchange.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
            b"connection: upgrade\r\n\r\nhello"
        )
        said = await exchange.reader.readexactly(4)
        exchange.writer.write(said.upper())
        await exchange.writer.drain()

    server = await bed.serve("a", talk)
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    reader, writer = await asyncio.open_connection("127.0.0.1", bed.port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET / HTTP/1.1\r\nhost: web.p.localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode()
    )
    await bed.woken()
    bed.publish("web", awake("web@1", server))
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"ping")
        assert await reader.readexactly(4) == b"PING"
    writer.close()


@pytest.mark.parametrize("body", [None, b"x" * 100])
async def test_failed_start_releases_held_requests_with_the_reason(
    bed: Bed, body: bytes | None
) -> None:
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    method = "GET" if body is None else "POST"
    asked = asyncio.ensure_future(bed.ask("web", method=method, content=body))
    await bed.woken()
    await held_count(bed, 1)
    refusal = Refusal(status=503, code="start_failed", message="exit code 3", retry_after_s=7)
    bed.publish("web", refusal)
    async with asyncio.timeout(3):
        answer = await asked
    assert answer.status_code == 503
    assert answer.json() == {"error": {"code": "start_failed", "message": "exit code 3"}}
    later = await bed.ask("web")
    assert later.headers["retry-after"] == "7"
    assert later.json()["error"]["message"] == "exit code 3"


async def test_start_deadline(bed: Bed) -> None:
    bed.publish("web", asleep("web@1"), deadline_s=0.5)
    await bed.applied()
    answer = await bed.ask("web")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "start_timed_out"
    # The subscription stands: whoever comes later is served as soon as there is an instance.
    server = await bed.serve("a")
    asked = asyncio.ensure_future(bed.ask("web"))
    await held_count(bed, 1)
    bed.publish("web", awake("web@1", server))
    assert (await asked).status_code == 200


async def test_client_that_leaves_while_held_is_not_sent_to_the_instance(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    leaving = asyncio.ensure_future(bed.ask("web", "/leaves"))
    staying = asyncio.ensure_future(bed.ask("web", "/stays"))
    await bed.woken()
    await held_count(bed, 2)
    leaving.cancel()
    await held_count(bed, 1)
    bed.publish("web", awake("web@1", server))
    assert (await staying).status_code == 200
    assert [exchange.path for exchange in server.seen] == ["/stays"]


@pytest.mark.parametrize("body", [None, b"x" * 100])
async def test_held_requests_follow_a_new_generation(bed: Bed, body: bytes | None) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    method = "GET" if body is None else "POST"
    asked = asyncio.ensure_future(bed.ask("web", method=method, content=body))
    await bed.woken()
    await held_count(bed, 1)
    bed.publish("web", asleep("web@2"))
    assert await bed.woken() == "web@2"
    bed.publish("web", awake("web@2", server))
    assert (await asked).status_code == 200


async def test_sleep_and_wake_again_many_times(bed: Bed) -> None:
    server = await bed.serve("a")
    for generation in range(1, 6):
        name = f"web@{generation}"
        bed.publish("web", asleep(name))
        await bed.applied()
        asked = asyncio.ensure_future(bed.ask("web"))
        assert await bed.woken() == name
        bed.publish("web", awake(name, server))
        assert (await asked).status_code == 200
    clusters = (await bed.envoy.ask_admin("GET", "/clusters?format=json")).json()
    names = {status["name"] for status in clusters["cluster_statuses"]}
    assert names == {"control_plane", "chains", "files", "web@5"}


async def test_sleep_under_load_fails_no_request(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    stop = asyncio.Event()
    codes: list[int] = []

    async def load() -> None:
        async with bed.client() as client:
            while not stop.is_set():
                answer = await client.post(
                    "/", headers={"host": "web.p.localhost"}, content=b"x" * 1000
                )
                codes.append(answer.status_code)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(load())
        for generation in range(2, 12):
            done = len(codes)
            await until(lambda: len(codes) > done + 50)  # noqa: B023
            bed.publish("web", asleep(f"web@{generation}"))
            await bed.woken()
            bed.publish("web", awake(f"web@{generation}", server))
        stop.set()
    assert set(codes) == {200}


async def held_count(bed: Bed, count: int) -> None:
    """Wait until so many requests are inside Envoy."""
    while await bed.stat("http.services.downstream_rq_active") != count:
        await asyncio.sleep(0.01)


async def test_pause_and_resume_under_one_name(bed: Bed) -> None:
    server = await bed.serve("a")
    paused = Refusal(status=503, code="paused", message="service web is paused")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    for _ in range(3):
        asked = asyncio.ensure_future(bed.ask("web", content=b"x"))
        assert await bed.woken() == "web@1"
        await held_count(bed, 1)
        bed.publish("web", paused)
        assert (await asked).json()["error"]["code"] == "paused"
        bed.publish("web", asleep("web@1"))
        await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web", content=b"x"))
    assert await bed.woken() == "web@1"
    bed.publish("web", awake("web@1", server))
    assert (await asked).status_code == 200
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web"))
    assert await bed.woken() == "web@1"
    bed.publish("web", awake("web@1", server))
    assert (await asked).status_code == 200
    await until(lambda: any(load.upstream == "web@1" for load in bed.loads))
    assert not [load.upstream for load in bed.loads if load.upstream != "web@1"]


async def test_asleep_after_a_restart_under_a_name_that_envoy_still_has(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    await bed.gateway.close()
    bed.gateway = bed.make_gateway()
    await bed.gateway.start()
    route = dataclasses.replace(bed.routes["web"], target=asleep("web@1"))
    bed.gateway.publish_all([route], [], bed.trust)
    await until(bed.gateway.is_connected)
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web"))
    assert await bed.woken() == "web@1"
    bed.publish("web", awake("web@1", server))
    assert (await asked).status_code == 200
