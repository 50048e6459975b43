"""Builds that nobody waits for any more end, whatever they were at."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tramontane.base.errors import BuildFailed
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import Definition, ModelSource, ServiceKind
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.reconcile import builds
from tramontane.reconcile.builds import BuildReconciler
from tramontane.testing.clocks import FakeClock

ID = DeploymentId("dep_1")
ARTIFACT = Artifact(digest="sha256:1", language="gguf", command=("x",), directory="/", mounts=())


class World:
    def __init__(self) -> None:
        self.deployment: Deployment | None = Deployment(
            id=ID,
            service_id=ServiceId("svc_1"),
            number=1,
            definition=Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="tiny")),
            created_at=0.0,
        )
        self.recorded: list[object] = []
        self.events: list[str] = []
        self.enough = asyncio.Event()
        clock = FakeClock()
        self.services: NudgeQueue[ServiceId] = NudgeQueue(clock.monotonic)
        self.reconciler = BuildReconciler(
            store=self,
            make_artifact=self.make,
            queue=NudgeQueue(clock.monotonic),
            services=self.services,
            clock=clock,
        )

    @asynccontextmanager
    async def make(self, deployment: Deployment) -> AsyncGenerator[Artifact]:
        self.events.append("begun")
        try:
            await self.enough.wait()
            if self.events[-1] == "spoil":
                raise BuildFailed("it does not compile")
            yield ARTIFACT
        finally:
            self.events.append("ended")

    def read_deployment(self, deployment_id: DeploymentId) -> Deployment | None:
        return self.deployment

    def record_artifact(self, deployment_id: DeploymentId, artifact: Artifact) -> bool:
        # The artifact must still be held while it is being recorded.
        assert self.events == ["begun"]
        self.recorded.append(artifact)
        return True

    def record_build_failure(
        self, deployment_id: DeploymentId, reason: str, message: str, now: float
    ) -> bool:
        self.recorded.append((reason, message))
        return True


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(builds, "LOOK_AGAIN_S", 0.01)
    return World()


async def test_what_was_made_is_recorded_while_it_is_held(world: World) -> None:
    world.enough.set()
    await world.reconciler.reconcile(ID)
    assert world.recorded == [ARTIFACT]
    assert world.events == ["begun", "ended"]
    assert await world.services.take() == ServiceId("svc_1")


async def test_a_failure_is_recorded_with_its_reason(world: World) -> None:
    task = asyncio.ensure_future(world.reconciler.reconcile(ID))
    while not world.events:
        await asyncio.sleep(0)
    world.events.append("spoil")
    world.enough.set()
    await task
    assert world.recorded == [("build_failed", "it does not compile")]


@pytest.mark.parametrize("gone", [True, False])
async def test_a_build_that_is_not_wanted_any_more_ends(world: World, gone: bool) -> None:
    task = asyncio.ensure_future(world.reconciler.reconcile(ID))
    while not world.events:
        await asyncio.sleep(0)
    assert world.deployment is not None
    superseded = replace(world.deployment, status=DeploymentStatus.SUPERSEDED)
    world.deployment = None if gone else superseded
    await asyncio.wait_for(task, 5)
    assert world.events == ["begun", "ended"]
    assert world.recorded == []


async def test_a_stop_of_the_platform_ends_it_too(world: World) -> None:
    task = asyncio.ensure_future(world.reconciler.reconcile(ID))
    while not world.events:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.events == ["begun", "ended"]
