"""A collection as a whole: what goes, what stays, what it says, and what it does about failures."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.reconcile.garbage_world import LIMITS, World, digest_of
from tramontane.domain.definition import Probe, Resources
from tramontane.domain.ids import CellId, InstanceId
from tramontane.domain.inventory import Item, ItemKind
from tramontane.reconcile.garbage import describe
from tramontane.runtimes.runtime import InstanceSpec
from tramontane.store.store import open_store
from tramontane.testing.fake_runtime import FakeHost, FakeRuntime


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(open_store(tmp_path / "tramontane.db"), tmp_path)
    yield world
    world.kill()
    world.store.close()


def deploy(world: World, name: str, number: int) -> None:
    for step in (world.begin_upload, world.place_upload, world.record_upload):
        step(number)
    world.deploy(name, number)
    world.begin_build(name)
    world.end_build(name)


def later(world: World) -> None:
    world.clock.advance(LIMITS.unneeded_kept_s + 1)
    world.collect()


def numbers(world: World, name: str = "a") -> list[int]:
    service = world.store.read_service("p", name).service
    return [each.number for each in world.store.list_deployments(service.id)]


def test_twelve_deployments_leave_as_many_as_are_kept(world: World) -> None:
    for number in range(12):
        deploy(world, "a", number)
    world.collect()
    assert numbers(world) == [12, 11]
    later(world)
    later(world)
    artifacts, archives = world.left()
    assert archives == {digest_of(10), digest_of(11)}
    assert len(artifacts) == 2
    world.rollback("a", 11)
    world.take_over("a")
    world.start_instance("a")
    world.check()


def test_a_deleted_service_frees_what_no_other_uses(world: World) -> None:
    deploy(world, "a", 1)
    deploy(world, "b", 1)
    deploy(world, "b", 2)
    world.delete("b")
    world.collect()
    assert world.left()[1] == {digest_of(1), digest_of(2)}, "it is kept a while"
    later(world)
    assert world.left()[1] == {digest_of(1)}
    world.check_settled()
    assert len(world.left()[0]) == 1


def test_what_a_build_of_a_deleted_service_uses_stays_until_it_ends(world: World) -> None:
    world.begin_upload(1)
    world.place_upload(1)
    world.record_upload(1)
    world.deploy("a", 1)
    world.begin_build("a")
    world.delete("a")
    for _ in range(3):
        later(world)
        world.check()
    world.kill()
    world.check_settled()
    assert world.left() == (set(), set())


def test_an_upload_that_takes_for_ever_keeps_its_file(world: World) -> None:
    world.begin_upload(1)
    world.place_upload(1)
    for _ in range(3):
        later(world)
    world.record_upload(1)
    world.check()


def test_an_upload_that_was_killed_leaves_nothing(world: World) -> None:
    world.begin_upload(1)
    world.begin_upload(2)
    world.place_upload(2)
    world.kill()
    world.check_settled()
    assert list((world.directory / "sources").iterdir()) == []


def test_an_instance_that_no_row_knows_is_ended_before_its_artifact_goes(world: World) -> None:
    host = FakeHost(clock=world.clock)
    world.runtimes[CellId("cel_1")] = FakeRuntime(host)
    world.start()
    deploy(world, "a", 1)
    deployment = world.desired("a")
    assert deployment is not None
    assert deployment.artifact is not None
    spec = InstanceSpec(
        id=InstanceId("ins_1"),
        label="p/a#1",
        artifact=deployment.artifact,
        command=(),
        environment=(),
        resources=Resources(),
        probe=Probe(),
        log_path="",
    )
    asyncio.run(world.runtimes[CellId("cel_1")].start(spec))
    world.delete("a")
    world.collect()
    later(world)
    assert host.instances == {}
    assert len(world.left()[0]) == 1
    later(world)
    assert world.left() == (set(), set())


def test_it_says_in_one_line_what_went(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for number in (1, 2, 3):
        deploy(world, "a", number)
    with caplog.at_level(logging.INFO):
        asyncio.run(world.garbage.reconcile())
        asyncio.run(world.garbage.reconcile())
    assert [each.getMessage() for each in caplog.records] == ["collected 1 deployment: 0 B"]
    removed = [
        Item(kind=ItemKind.ARCHIVE, name="a", size_bytes=1024),
        Item(kind=ItemKind.ARCHIVE, name="b", size_bytes=1024),
        Item(kind=ItemKind.CACHE, name="c"),
    ]
    assert describe(0, removed) == "2 archives, 1 cache: 2 KiB"


class BrokenStorage:
    """A disk that can be read only."""

    def list_items(self) -> list[Item]:
        return [Item(kind=ItemKind.CACHE, name="p/uv", size_bytes=1)]

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        raise OSError("read-only file system")


def test_what_cannot_be_removed_holds_up_nothing_else(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.garbage.storages = {**world.garbage.storages, ItemKind.CACHE: BrokenStorage()}
    deploy(world, "a", 1)
    world.delete("a")
    asyncio.run(world.garbage.reconcile())
    world.clock.advance(LIMITS.unneeded_kept_s + 1)
    asyncio.run(world.garbage.reconcile())
    assert "cannot remove cache p/uv; it is tried again" in caplog.text
    assert world.left() == (set(), set()), "archives go after caches"


def test_the_use_of_the_disk_is_known_after_a_look(world: World) -> None:
    assert world.garbage.usage is None
    deploy(world, "a", 1)
    world.collect()
    usage = world.garbage.usage
    assert usage is not None
    assert usage.at == world.clock.now()
    assert usage.archives == len(b"archive 1")
    assert usage.artifacts > 0
    assert usage.caches == 0
