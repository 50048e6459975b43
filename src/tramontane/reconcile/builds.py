"""Turns deployments that are still source into ones with an artifact.

Nudged by ``reconcile.services``; when a build ends, the service is nudged in turn. Building the
same thing twice is harmless: artifacts are cached by content.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from tramontane.base.clock import Clock
from tramontane.base.errors import TramontaneError
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.artifact import Artifact
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId

log = logging.getLogger(__name__)

WORKERS = 64
"""Most of them wait, for the source of a model or for others' builds to end, and cost nothing."""
LOOK_AGAIN_S = 2.0
"""A deployment that is not wanted any more should not go on fetching gigabytes."""


class BuildMemory(Protocol):
    """What this reconciler needs of the store."""

    def read_deployment(self, deployment_id: DeploymentId) -> Deployment | None:
        """Return the deployment, or None if it is gone."""
        ...

    def record_artifact(self, deployment_id: DeploymentId, artifact: Artifact) -> bool:
        """The build succeeded; False if the deployment is gone."""
        ...

    def record_build_failure(
        self, deployment_id: DeploymentId, reason: str, message: str, now: float
    ) -> bool:
        """The build failed for good; False if the deployment is gone or moved on."""
        ...


MakeArtifact = Callable[[Deployment], AbstractAsyncContextManager[Artifact]]
"""Builds source or prepares a model, and keeps the artifact where it is while the block runs.

Raises ``TramontaneError`` with what the user should know.
"""


@dataclass(kw_only=True)
class BuildReconciler:
    """Builds what is waiting."""

    store: BuildMemory
    make_artifact: MakeArtifact
    queue: NudgeQueue[DeploymentId]
    services: NudgeQueue[ServiceId]
    clock: Clock

    async def run(self) -> None:
        """Build until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def reconcile(self, deployment_id: DeploymentId) -> None:
        """Build one deployment if it still needs it."""
        deployment = await asyncio.to_thread(self.store.read_deployment, deployment_id)
        if deployment is None or deployment.status is not DeploymentStatus.BUILDING:
            return
        task = asyncio.ensure_future(self._make(deployment))
        try:
            while not (await asyncio.wait([task], timeout=LOOK_AGAIN_S))[0]:
                seen = await asyncio.to_thread(self.store.read_deployment, deployment_id)
                if seen is None or seen.status is not DeploymentStatus.BUILDING:
                    return
            task.result()
        finally:
            if task.cancel():
                await asyncio.wait([task])
        self.services.nudge(deployment.service_id)

    async def _make(self, deployment: Deployment) -> None:
        async with AsyncExitStack() as held:
            try:
                artifact = await held.enter_async_context(self.make_artifact(deployment))
            except TramontaneError as error:
                await asyncio.to_thread(
                    self.store.record_build_failure,
                    deployment.id,
                    error.code,
                    error.message,
                    self.clock.now(),
                )
            else:
                await asyncio.to_thread(self.store.record_artifact, deployment.id, artifact)

    async def _work(self) -> None:
        while True:
            deployment_id = await self.queue.take()
            try:
                await self.reconcile(deployment_id)
            except Exception:
                log.exception("building %s failed unexpectedly; it is tried again", deployment_id)
                self.queue.nudge_in(deployment_id, 5.0)
            finally:
                self.queue.done(deployment_id)
