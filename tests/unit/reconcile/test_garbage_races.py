"""Whatever falls between two steps of a collection, nothing needed is lost, kill -9 included.

Not samples: each race is run once for every pair of places in the collection where the two halves
of what somebody else does may fall.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from tests.unit.reconcile.garbage_world import LIMITS, Killed, World
from tramontane.store.store import open_store
from tramontane.testing.clocks import FakeClock

Act = Callable[[World], None]


def put(world: World, number: int) -> None:
    world.begin_upload(number)
    world.place_upload(number)
    world.record_upload(number)


def deploy_whole(world: World, name: str, number: int) -> None:
    put(world, number)
    world.deploy(name, number)
    world.begin_build(name)
    world.end_build(name)


def wait_long(world: World) -> None:
    """Let the collector see that something is not needed, and the time pass that it is kept."""
    world.collect()
    world.clock.advance(LIMITS.unneeded_kept_s + 1)


# --- what lies there when the collection begins -----------------------------------------------


def spare_archive(world: World) -> None:
    put(world, 1)
    wait_long(world)


def deleted_service(world: World) -> None:
    deploy_whole(world, "a", 1)
    world.delete("a")
    wait_long(world)


def spare_artifact(world: World) -> None:
    """Its archive is needed: another service is about to be built from it."""
    deploy_whole(world, "a", 1)
    world.deploy("b", 1)
    world.delete("a")
    wait_long(world)


def spare_layer(world: World) -> None:
    """Another archive is about to be built with the same layer."""
    deploy_whole(world, "a", 1)
    put(world, 2)
    world.deploy("b", 2)
    world.delete("a")
    wait_long(world)


def old_deployments(world: World) -> None:
    for number in (1, 2, 3, 4):
        deploy_whole(world, "a", number)


# --- what somebody does meanwhile, in two halves ----------------------------------------------

RACES: dict[str, tuple[Act, Act, Act]] = {
    "a client is told that the archive is here, and deploys it": (
        spare_archive,
        lambda world: world.ask(1),
        lambda world: world.deploy("a", 1),
    ),
    "a client deploys without asking": (
        spare_archive,
        lambda world: world.deploy("a", 1),
        lambda world: world.begin_build("a"),
    ),
    "the same archive is uploaded again": (
        spare_archive,
        lambda world: (world.begin_upload(1), world.place_upload(1))[0],
        lambda world: (world.place_upload(1), world.record_upload(1), world.deploy("a", 1))[0],
    ),
    "what was deleted is deployed again": (
        deleted_service,
        lambda world: (world.ask(1), world.deploy("b", 1))[0],
        lambda world: (world.begin_build("b"), world.end_build("b"))[0],
    ),
    "a build takes the artifact that is there": (
        spare_artifact,
        lambda world: world.begin_build("b"),
        lambda world: (world.end_build("b"), world.start_instance("b"))[0],
    ),
    "a build takes the layer that is there": (
        spare_layer,
        lambda world: world.begin_build("b"),
        lambda world: world.end_build("b"),
    ),
    "a user goes back to a deployment that is about to be forgotten": (
        old_deployments,
        lambda world: world.rollback("a", 1),
        lambda world: (world.take_over("a"), world.start_instance("a"))[0],
    ),
    "a service is deleted while it is built": (
        spare_artifact,
        lambda world: world.begin_build("b"),
        lambda world: world.delete("b"),
    ),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "template.db"
    open_store(path).close()
    return path


class Bed:
    """Runs one collection after another over the same beginning."""

    def __init__(self, template: Path, directory: Path, setup: Act) -> None:
        self.here, self.before = directory / "here", directory / "before"
        self.here.mkdir()
        shutil.copy(template, self.here / "tramontane.db")
        self.store = open_store(self.here / "tramontane.db")
        self.world = World(self.store, self.here)
        setup(self.world)
        self.store.close()
        shutil.copytree(self.here, self.before)

    def run(self, at_seam: Callable[[World, int], None], *, settle: bool = True) -> int:
        """Run a collection and return how many seams it has; ``at_seam`` is called after it, too,
        with -1."""
        world = self.renew()
        count = 0

        def seam() -> None:
            nonlocal count
            at_seam(world, count)
            count += 1

        world.seam = seam
        with suppress(Killed):
            world.collect()
        world.seam = lambda: None
        at_seam(world, -1)
        world.check()
        world.kill()
        if settle:
            world.check_settled()
        return count

    def renew(self) -> World:
        """Return the world as it was after the setup."""
        # The connections are made anew; what they compiled is kept, which is most of the time.
        self.store.close()
        shutil.rmtree(self.here)
        shutil.copytree(self.before, self.here)
        world = World(
            self.store,
            self.here,
            clock=FakeClock(self.world.clock.now()),
            promised=dict(self.world.promised),
        )
        world.garbage._unneeded_since = dict(self.world.garbage._unneeded_since)
        return world


@pytest.mark.parametrize("race", RACES)
def test_whatever_falls_between_two_steps(template: Path, tmp_path: Path, race: str) -> None:
    setup, first, second = RACES[race]
    bed = Bed(template, tmp_path, setup)
    seams = bed.run(lambda world, place: None)
    assert seams > 3
    for early, late in combinations_with_replacement(range(seams), 2):
        waiting = [(early, first), (late, second)]

        def act(world: World, place: int, waiting: list[tuple[int, Act]] = waiting) -> None:
            # A collection that has less to do has fewer seams: the rest happens after it.
            while waiting and (place < 0 or waiting[0][0] <= place):
                waiting.pop(0)[1](world)
                world.check()

        bed.run(act, settle=early == late)
    bed.store.close()


@pytest.mark.parametrize("setup", [deleted_service, spare_artifact, spare_layer, old_deployments])
def test_a_kill_anywhere_leaves_what_is_needed_and_the_next_look_ends_it(
    template: Path, tmp_path: Path, setup: Act
) -> None:
    bed = Bed(template, tmp_path, setup)
    for killed_at in range(bed.run(lambda world, place: None)):

        def kill(world: World, place: int, killed_at: int = killed_at) -> None:
            if place == killed_at:
                raise Killed

        bed.run(kill)
    bed.store.close()
