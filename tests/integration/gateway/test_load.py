"""Load reports: what the autoscaler sees, and when it sees nothing."""

import asyncio

import pytest

from tests.integration.gateway.bed import Bed, Exchange, asleep, awake, until
from tramontane.domain.route import Upstream

pytestmark = pytest.mark.timeout(60)


async def test_load_is_reported_per_endpoint_while_requests_are_open(bed: Bed) -> None:
    async def slow(exchange: Exchange) -> None:
        await release.wait()
        await exchange.answer(b"late")

    release = asyncio.Event()
    server = await bed.serve("a", slow)
    bed.publish("web", awake("web@1", server))
    await until(lambda: any(load.upstream == "web@1" for load in bed.loads))
    asked = [asyncio.ensure_future(bed.ask("web")) for _ in range(3)]
    await until(lambda: any(load.in_progress == 3 for load in bed.loads))
    # Open requests are reported again every interval, though none is issued.
    await until(lambda: sum(load.in_progress == 3 and not load.issued for load in bed.loads) >= 3)
    assert {e.endpoint for load in bed.loads for e in load.endpoints} == {server.path}
    release.set()
    await asyncio.gather(*asked)
    await until(lambda: bed.loads[-1].in_progress == 0)
    assert sum(load.issued for load in bed.loads) == 3


async def test_load_from_the_wake_on(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web"))
    await bed.woken()
    bed.publish("web", awake("web@1", server))
    await asked
    await until(lambda: any(load.upstream == "web@1" for load in bed.loads))


async def test_a_draining_endpoint_gets_nothing_new_but_still_counts(bed: Bed) -> None:
    async def slow(exchange: Exchange) -> None:
        await release.wait()
        await exchange.answer(b"late")

    release = asyncio.Event()
    old, new = await bed.serve("old", slow), await bed.serve("new")
    bed.publish("web", awake("web@1", old))
    await bed.applied()
    asked = asyncio.ensure_future(bed.ask("web"))
    await until(lambda: len(old.seen) == 1)
    bed.publish("web", Upstream(name="web@1", endpoints=(new.path,), draining=(old.path,)))
    await bed.applied()
    for _ in range(10):
        assert (await bed.ask("web")).status_code == 200
    assert (len(old.seen), len(new.seen)) == (1, 10)
    bed.loads.clear()
    await until(
        lambda: any(
            e.endpoint == old.path and e.in_progress for x in bed.loads for e in x.endpoints
        )
    )
    release.set()
    assert (await asked).text == "late"
