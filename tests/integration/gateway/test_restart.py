"""Whatever dies, what runs keeps serving: control plane, Envoy, instances."""

import asyncio
import os
import signal

import pytest

from tests.integration.gateway.bed import PATIENCE_S, Bed, Exchange, asleep, awake, make_bed, until
from tramontane.domain.route import Refusal

pytestmark = pytest.mark.timeout(60)


async def test_control_plane_restart_under_load_fails_nothing(bed: Bed) -> None:
    server = await bed.serve("a")
    for n in range(20):
        bed.publish(f"web{n}", awake(f"web{n}@1", server))
    bed.publish("idle", asleep("idle@1"))
    await bed.applied()
    updates = await bed.stat("cluster_manager.cluster_updated")
    stop = asyncio.Event()
    codes: list[int] = []

    async def load() -> None:
        async with bed.client() as client:
            while not stop.is_set():
                headers = {"host": f"web{len(codes) % 20}.p.localhost"}
                codes.append((await client.get("/", headers=headers)).status_code)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(load())
        for _ in range(3):
            done = len(codes)
            await until(lambda: len(codes) > done + 50)  # noqa: B023
            await bed.gateway.close()
            done = len(codes)
            await until(lambda: len(codes) > done + 50)  # noqa: B023
            await bed.restart_gateway()
            await until(bed.gateway.is_connected)
            await bed.applied()
        stop.set()
    assert set(codes) == {200}
    # The same state under the same versions: Envoy was told nothing, so nothing was rebuilt.
    assert await bed.stat("cluster_manager.cluster_updated") == updates
    assert await bed.stat("cluster_manager.cluster_removed") == 0


async def test_changes_made_while_away_are_caught_up(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("stays", awake("stays@1", server))
    bed.publish("goes", awake("goes@1", server))
    await bed.applied()
    await bed.gateway.close()
    del bed.routes["goes"]
    await bed.restart_gateway()
    await until(bed.gateway.is_connected)
    await bed.applied()
    assert (await bed.ask("stays")).status_code == 200
    assert (await bed.ask("goes")).status_code == 404
    assert await bed.stat("cluster_manager.cluster_removed") == 1


async def test_a_control_plane_that_stays_away_does_not_fill_the_log(bed: Bed) -> None:
    await bed.gateway.close()
    failed = r"cluster.control_plane.upstream_cx_connect_fail"
    async with asyncio.timeout(PATIENCE_S):
        while await bed.stat(failed) < 5:
            await asyncio.sleep(0.05)
    assert bed.paths.log.read_text() == ""


async def test_requests_held_over_a_restart_are_asked_for_again(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web", content=b"x"))
    await bed.woken()
    await bed.restart_gateway()
    assert await bed.woken() == "web@1"
    bed.publish("web", awake("web@1", server))
    assert (await asked).status_code == 200


async def test_start_that_failed_while_away_releases_the_held(bed: Bed) -> None:
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web", content=b"x"))
    await bed.woken()
    await bed.gateway.close()
    refusal = Refusal(status=503, code="start_failed", message="exit code 3")
    bed.routes["web"] = type(bed.routes["web"])(project="p", service="web", target=refusal)
    await bed.restart_gateway()
    async with asyncio.timeout(8):
        assert (await asked).status_code == 503


async def test_killed_envoy_comes_back_with_the_same_listeners(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    first = bed.envoy.pid
    assert first is not None
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(bed.envoy.watch())
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        await until(lambda: bed.envoy.pid not in (first, None))
        await bed.envoy.wait_ready(PATIENCE_S)
        assert (await bed.ask("web")).status_code == 200
        watching.cancel()


async def test_an_envoy_that_was_never_written_down_is_adopted_too(bed: Bed) -> None:
    pid = bed.envoy.ensure_running()
    await bed.envoy.wait_ready(PATIENCE_S)
    bed.paths.record.unlink()
    adopted = bed.make_envoy().adopt()
    assert adopted is not None
    assert adopted.pid == pid


async def test_a_running_envoy_is_adopted_and_stopped_gracefully(bed: Bed) -> None:
    async def slow(exchange: Exchange) -> None:
        await bed.gateway.wait_applied(5)
        await release.wait()
        await exchange.answer(b"late")

    release = asyncio.Event()
    server = await bed.serve("a", slow)
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    successor = bed.make_envoy()
    assert successor.ensure_running() == bed.envoy.pid
    asked = asyncio.ensure_future(bed.ask("web"))
    await until(lambda: len(server.seen) == 1)
    stopping = asyncio.ensure_future(successor.stop())
    release.set()
    assert (await asked).text == "late"
    await stopping
    assert bed.envoy.pid is None


async def test_an_instance_that_dies_between_requests_is_not_seen(bed: Bed) -> None:
    dying, living = await bed.serve("a"), await bed.serve("b")
    bed.publish("web", awake("web@1", dying, living))
    await bed.applied()
    async with bed.client() as client:
        headers = {"host": "web.p.localhost"}
        for _ in range(10):
            assert (await client.get("/", headers=headers)).status_code == 200
        await dying.close()
        answers = [await client.post("/", headers=headers, content=b"x") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}


async def test_all_instances_dead_says_so(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    bed.publish("none", awake("none@1"))
    await bed.applied()
    await server.close()
    answer = await bed.ask("web")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "instance_unreachable")
    answer = await bed.ask("none")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_instance")


async def test_nothing_is_taken_away_before_the_state_is_complete(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    await bed.gateway.close()
    bed.gateway = bed.make_gateway()
    await bed.gateway.start()
    with pytest.raises(TimeoutError):
        await bed.gateway.wait_applied(0.5)
    assert (await bed.ask("web")).status_code == 200


async def test_two_gateways_side_by_side() -> None:
    async with make_bed() as one, make_bed() as two:
        await one.start()
        await two.start()
        for bed in (one, two):
            bed.publish("web", awake("web@1", await bed.serve("a")))
            await bed.applied()
            assert (await bed.ask("web")).status_code == 200
