"""What one look at a service may do before its write is known to be good, and never leaves behind.

A real store in a file, a fake runtime, no sockets and no waiting.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tramontane.base.ids import counting_ids
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import Capacity, Cell
from tramontane.domain.definition import Definition, DirectorySource, ServiceKind
from tramontane.domain.ids import CellId, DeploymentId, ServiceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.route import EgressRoute, ServiceRoute
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Changes
from tramontane.reconcile import services
from tramontane.reconcile.demand import DemandTracker
from tramontane.reconcile.services import ServiceReconciler
from tramontane.reconcile.specs import InstancePaths
from tramontane.store.store import Store, open_store
from tramontane.store.tables import METADATA
from tramontane.testing.clocks import FakeClock
from tramontane.testing.fake_runtime import FakeHost, FakeRuntime

CELL = Cell(
    id=CellId("cel_1"),
    name="local",
    runtime="fake",
    isolation="sandbox",
    capacity=Capacity(memory_bytes=2**33, cpus=4.0),
    facts=(),
)
SOURCE = "sha256:" + "1" * 64
ARTIFACT = Artifact(
    digest="sha256:" + "0" * 64,
    language="go",
    command=("/app/main",),
    directory="/app",
    mounts=(),
)


@dataclass
class KnownRoutes:
    """The gateway's side, as a dictionary."""

    services: dict[str, ServiceRoute] = field(default_factory=dict[str, ServiceRoute])
    egress: dict[str, EgressRoute] = field(default_factory=dict[str, EgressRoute])

    def publish_service(self, route: ServiceRoute) -> None:
        self.services[route.service] = route

    def remove_service(self, project: str, service: str) -> None:
        del self.services[service]

    def publish_egress(self, route: EgressRoute) -> None:
        self.egress[route.service_id] = route

    def remove_egress(self, service_id: str) -> None:
        del self.egress[service_id]


class OvertakenStore:
    """The real store, in which the user's wish changes just before the next write."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before_write: Callable[[], object] = lambda: None
        self.list_service_ids = store.list_service_ids
        self.list_live_instances = store.list_live_instances
        self.read_snapshot = store.read_snapshot
        self.finish_delete = store.finish_delete

    def apply(self, changes: Changes, service_id: ServiceId, expected_generation: int) -> bool:
        self.before_write()
        return self._store.apply(changes, service_id, expected_generation)


class World:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.overtaken = OvertakenStore(store)
        self.clock = FakeClock()
        self.host = FakeHost(self.clock)
        self.routes = KnownRoutes()
        ids = counting_ids()
        store.upsert_cell(CELL)
        store.record_source(SOURCE, 5, now=self.clock.now())
        definition = Definition(kind=ServiceKind.WEB, source=DirectorySource(digest=SOURCE))
        service, deployment = store.deploy("p", "web", definition, now=self.clock.now(), ids=ids)
        self.service_id = service.id
        store.record_artifact(deployment.id, ARTIFACT)
        self.queue: NudgeQueue[ServiceId] = NudgeQueue(self.clock.monotonic)
        self.reconciler = ServiceReconciler(
            store=self.overtaken,
            runtimes={CELL.id: FakeRuntime(self.host)},
            cells=(CELL,),
            routes=self.routes,
            demand=DemandTracker(self.clock.now()),
            queue=self.queue,
            builds=NudgeQueue[DeploymentId](self.clock.monotonic),
            paths=InstancePaths(logs="/logs", sockets="/run", ledger="/ledger"),
            clock=self.clock,
            ids=ids,
            on_change=lambda _: None,
        )

    async def look(self, times: int = 3) -> None:
        for _ in range(times):
            await self.reconciler.reconcile(self.service_id)

    async def sleep(self) -> None:
        """Let the service fall asleep: its instance drains, ends and is forgotten."""
        for _ in range(20):
            for observation in await FakeRuntime(self.host).inspect():
                self.reconciler.observe(observation)
            await self.look(times=1)
            if not self.live_rows():
                return
            self.clock.advance(60)
            self.host.step()
        raise AssertionError("it does not fall asleep")

    def live_rows(self) -> set[str]:
        return set(self.store.list_live_instances())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "tramontane.db")
    yield opened
    opened.close()


def test_what_runs_has_a_row(store: Store) -> None:
    async def run() -> None:
        world = World(store)
        await world.look()
        assert len(world.host.instances) == 1
        assert set(world.host.instances) == world.live_rows()

    asyncio.run(run())


def test_an_instance_whose_row_was_refused_is_removed(store: Store) -> None:
    async def run() -> None:
        world = World(store)
        world.overtaken.before_write = lambda: store.pause("p", "web", now=1)
        await world.look(times=1)
        assert world.host.used, "it was started beside the write, or this test shows nothing"
        assert not world.host.instances
        assert not world.live_rows()
        world.overtaken.before_write = lambda: None
        await world.look()
        assert not world.host.instances
        assert await asyncio.wait_for(world.queue.take(), 1.0) == world.service_id

    asyncio.run(run())


def test_an_instance_whose_row_could_not_be_written_is_removed(store: Store) -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    async def run() -> None:
        world = World(store)
        world.overtaken.before_write = fail
        with pytest.raises(OSError, match="disk is full"):
            await world.look(times=1)
        assert world.host.used
        assert not world.host.instances
        world.overtaken.before_write = lambda: None
        await world.look()
        assert set(world.host.instances) == world.live_rows() != set()
        snapshot = store.read_snapshot(world.service_id)
        assert snapshot
        assert {each.status for each in snapshot.instances} <= {
            InstanceStatus.STARTING,
            InstanceStatus.HEALTHY,
        }

    asyncio.run(run())


def test_the_way_out_stays_open_for_the_next_wake_and_ends_with_the_service(store: Store) -> None:
    async def run() -> None:
        world = World(store)
        await world.look()
        assert set(world.routes.egress) == {world.service_id}
        store.scale("p", "web", 0, now=1)
        await world.sleep()
        assert set(world.routes.egress) == {world.service_id}
        store.delete_service("p", "web", now=1)
        await world.look()
        assert not world.routes.egress

    asyncio.run(run())


def test_an_instance_gets_a_key_for_the_models_that_it_is_bound_to(store: Store) -> None:
    async def run() -> None:
        world = World(store)
        asked: list[tuple[str, tuple[str, ...], str]] = []

        def access(service: Service, definition: Definition, instance: Instance) -> dict[str, str]:
            asked.append((service.name, definition.models, instance.id))
            return {"OPENAI_API_KEY": "tram_x"}

        world.reconciler.model_access = access
        definition = Definition(
            kind=ServiceKind.WEB, source=DirectorySource(digest=SOURCE), models=("b", "a")
        )
        _, deployment = store.deploy("p", "web", definition, now=1, ids=world.reconciler.ids)
        store.record_artifact(deployment.id, ARTIFACT)
        await world.look()
        ((instance_id, instance),) = world.host.instances.items()
        assert asked == [("web", ("b", "a"), instance_id)]
        assert dict(instance.spec.environment)["OPENAI_API_KEY"] == "tram_x"
        way = world.routes.egress[world.service_id]
        assert way.models == ("a", "b")
        assert way.models_socket == instance.spec.models_socket
        with store._database.read() as connection:
            kept = [
                str(row)
                for table in METADATA.sorted_tables
                for row in connection.execute(table.select())
            ]
        assert len(kept) > 3
        assert "tram_x" not in "".join(kept)

    asyncio.run(run())


def test_only_so_many_ways_out_stay_open(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "IDLE_WAYS_MAX", 0)

    async def run() -> None:
        world = World(store)
        await world.look()
        store.scale("p", "web", 0, now=1)
        await world.sleep()
        assert not world.routes.egress

    asyncio.run(run())
