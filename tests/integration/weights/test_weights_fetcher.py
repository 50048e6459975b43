"""One fetch for all who want the same, room made for it, and nothing taken from who needs it."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.weights.conftest import SMALL_PARTS, make_weights
from tests.integration.weights.hub import Hub
from tramontane.base.errors import Conflict, InvalidRequest, NotFound, SourceFailed, Unsupported
from tramontane.domain.reference import BundledReference, FileReference, parse_reference
from tramontane.plan.weights import RoomLimits
from tramontane.testing.clocks import FakeClock
from tramontane.weights.cache import Cache
from tramontane.weights.download import Download, DownloadOptions
from tramontane.weights.fetcher import LEFTOVERS_KEPT_S, Fetcher
from tramontane.weights.job import FetchJob
from tramontane.weights.settings import HubSettings, SourceSettings
from tramontane.weights.sources import Sources
from tramontane.weights.transport import Transport

SIZE = 500_000


async def fetch_in_a_thread(job: FetchJob, on_bytes: Callable[[int], None]) -> Mapping[str, str]:
    transport = Transport(lambda _: None)
    reference = parse_reference(job.reference)
    assert not isinstance(reference, BundledReference | FileReference)
    download = Download(
        reference=reference,
        files=job.files,
        cache=Cache(Path(job.root)),
        sources=Sources(job.settings, transport, FakeClock()),
        transport=transport,
        options=DownloadOptions(part_bytes=SMALL_PARTS.part_bytes, attempts_max=2),
        on_bytes=on_bytes,
    )
    try:
        return await asyncio.to_thread(download.run)
    finally:
        download.stop.set()
        transport.close()


class World:
    def __init__(self, hub: Hub, root: Path) -> None:
        self.hub = hub
        self.users: dict[str, list[str]] = {}
        self.lines: list[str] = []
        self.fetches = 0
        self.clock = FakeClock()
        cache = Cache(root)
        cache.ensure_folders()
        self.fetcher = Fetcher(
            cache=cache,
            settings=lambda: SourceSettings(hub=HubSettings(endpoint=hub.endpoint)),
            fetch_apart=self.fetch,
            list_users=lambda: self.users,
            limits=RoomLimits(bytes_max=SIZE * 5 // 2, free_bytes_min=0),
            clock=self.clock,
            transport=Transport(lambda _: None),
        )

    async def fetch(self, job: FetchJob, on_bytes: Callable[[int], None]) -> Mapping[str, str]:
        self.fetches += 1
        return await fetch_in_a_thread(job, on_bytes)

    def commit(self, name: str, seed: int) -> str:
        self.hub.repository(name).commit({f"{name[-1]}.gguf": make_weights(SIZE, seed)})
        return self.fetcher.pin(f"hf://{name}")

    async def ensure(self, reference: str) -> None:
        self.clock.advance(1.0)
        await self.fetcher.ensure(reference, self.lines.append)

    async def list(self) -> list[str]:
        return [each.references[0][:10] for each in await self.fetcher.list_weights()]


@pytest.fixture
def world(hub: Hub, tmp_path: Path) -> Iterator[World]:
    made = World(hub, tmp_path / "weights")
    yield made
    made.fetcher.transport.close()


async def test_many_who_want_the_same_share_one_fetch(world: World) -> None:
    reference = world.commit("local/a", 1)
    await asyncio.gather(*(world.ensure(reference) for _ in range(5)))
    assert world.fetches == 1
    assert world.hub.bytes_sent == SIZE
    assert world.lines[0].startswith(f"weights: {reference}, 1 file, ")
    found = parse_reference(reference)
    assert not isinstance(found, BundledReference | FileReference)
    folder = world.fetcher.find(found)
    assert [each.name for each in folder.iterdir()] == ["a.gguf"]
    await world.ensure(reference)
    assert world.lines[-1].endswith("on this machine already")
    assert world.fetches == 1


async def test_the_least_recently_used_gives_way_and_what_is_needed_stays(world: World) -> None:
    a, b, c = (world.commit(f"local/{name}", seed) for seed, name in enumerate("abc"))
    await world.ensure(a)
    await world.ensure(b)
    assert await world.list() == ["hf://local", "hf://local"]
    await world.ensure(a)
    await world.ensure(c)
    assert {each.references[0] for each in await world.fetcher.list_weights()} == {a, c}
    world.users = {a: ["default/a"], c: ["default/c", "shop/d"]}
    with pytest.raises(Unsupported, match=r"no room for .*local/b.* of which .* are in use"):
        await world.ensure(b)
    assert {each.references[0] for each in await world.fetcher.list_weights()} == {a, c}


async def test_no_byte_is_fetched_where_there_is_no_room(world: World) -> None:
    world.fetcher.limits = RoomLimits(bytes_max=SIZE - 1, free_bytes_min=0)
    reference = world.commit("local/a", 1)
    with pytest.raises(Unsupported, match=r"it needs 488.3 KiB more; weights may take 488.3 KiB"):
        await world.ensure(reference)
    world.fetcher.limits = RoomLimits(bytes_max=SIZE, free_bytes_min=2**60)
    with pytest.raises(Unsupported, match=r"stay free; see tram models cache"):
        await world.ensure(reference)
    assert world.hub.bytes_sent == 0


async def test_two_fetches_do_not_count_on_the_same_room(world: World) -> None:
    world.fetcher.limits = RoomLimits(bytes_max=SIZE * 3 // 2, free_bytes_min=0)
    world.hub.faults.bytes_per_s = SIZE
    a, b = world.commit("local/a", 1), world.commit("local/b", 2)
    ends = await asyncio.gather(world.ensure(a), world.ensure(b), return_exceptions=True)
    assert [type(each) for each in ends if each] == [Unsupported]


async def test_weights_in_use_are_not_removed_by_hand(world: World) -> None:
    reference = world.commit("local/a", 1)
    await world.ensure(reference)
    (weights,) = await world.fetcher.list_weights()
    assert weights.digest is not None
    world.users = {reference: ["default/mistral"]}
    with pytest.raises(Conflict, match="used by default/mistral"):
        await world.fetcher.evict(weights.digest)
    world.users = {}
    await world.fetcher.evict(weights.digest)
    assert await world.fetcher.list_weights() == []
    with pytest.raises(NotFound, match="no weights"):
        await world.fetcher.evict(weights.digest)


async def test_a_limit_that_was_lowered_is_kept_and_use_counts_as_use(world: World) -> None:
    a, b = world.commit("local/a", 1), world.commit("local/b", 2)
    await world.ensure(a)
    await world.ensure(b)
    world.users = {a: ["default/a"]}
    world.clock.advance(100)
    await world.fetcher.keep()
    world.users = {}
    world.fetcher.limits = RoomLimits(bytes_max=SIZE, free_bytes_min=0)
    await world.fetcher.keep()
    (left,) = await world.fetcher.list_weights()
    assert left.references == (a,)


async def test_what_a_fetch_left_is_kept_a_while_for_who_tries_again(world: World) -> None:
    reference = world.commit("local/a", 1)
    world.hub.faults.statuses = [503] * 100
    with pytest.raises(SourceFailed):
        await world.ensure(reference)
    cache = world.fetcher.cache
    (left,) = cache.partial.iterdir()
    now = world.clock.now()
    for path in (left, *left.iterdir()):
        os.utime(path, (now, now))
    await world.fetcher.keep()
    assert left.exists()
    world.clock.advance(LEFTOVERS_KEPT_S + 1)
    await world.fetcher.keep()
    assert not left.exists()


async def test_what_was_fetched_ahead_is_there_when_it_is_needed(world: World) -> None:
    reference = world.commit("local/a", 1)
    weights = await world.fetcher.fetch_ahead(reference)
    assert weights.digest is None
    while weights.digest is None:
        await asyncio.sleep(0.01)
        weights = await world.fetcher.fetch_ahead(reference)
    assert weights.size_bytes == SIZE
    await world.ensure(reference)
    assert world.fetches == 1
    with pytest.raises(InvalidRequest, match="machine already"):
        await world.fetcher.fetch_ahead("tiny")


async def test_a_fetch_ahead_that_failed_says_so_once_and_begins_anew(world: World) -> None:
    reference = world.commit("local/a", 1)
    world.hub.faults.spoil = "a.gguf"

    async def ask_until_it_ends() -> None:
        while (await world.fetcher.fetch_ahead(reference)).digest is None:
            await asyncio.sleep(0.01)

    with pytest.raises(SourceFailed, match="has not the checksum"):
        await ask_until_it_ends()
    world.hub.faults.spoil = ""
    await ask_until_it_ends()


async def test_what_nobody_could_use_is_not_fetched(world: World) -> None:
    reference = world.commit("local/a", 1)

    def refuse(names: object) -> None:
        raise Unsupported(f"nobody serves {names}")

    with pytest.raises(Unsupported, match=r"nobody serves \['a.gguf'\]"):
        await world.fetcher.ensure(reference, world.lines.append, refuse)
    assert world.hub.bytes_sent == 0


async def test_a_file_of_the_machine_is_used_where_it_is_while_it_stays_the_same(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF one")
    pinned = world.fetcher.pin(str(file))
    assert pinned.startswith(f"file://{file}#")
    assert world.fetcher.pin(str(file)) == pinned
    await world.ensure(pinned)
    file.write_bytes(b"GGUF another")
    with pytest.raises(InvalidRequest, match="has changed since it was deployed; deploy it again"):
        await world.ensure(pinned)
    assert world.fetcher.pin(str(file)) != pinned
    assert world.fetcher.pin("tiny") == "tiny"
