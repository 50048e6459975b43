"""Makes a deployment's artifact: builds uploaded source, or prepares a model's engine.

Handed to ``reconcile.builds`` by the control plane. Writes the build's log as it goes.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from tramontane.base.clock import Clock
from tramontane.base.errors import BuildFailed, TramontaneError, Unsupported
from tramontane.builders.build import build
from tramontane.builders.settings import BuildSettings, Log
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import DirectorySource, ModelSource
from tramontane.domain.deployment import Deployment
from tramontane.domain.ids import ServiceId
from tramontane.domain.model import WeightsFormat
from tramontane.engines.inspection import weight_files
from tramontane.engines.llamacpp import EngineFiles, Weights, make_artifact
from tramontane.processes.layout import Layout
from tramontane.processes.logs import LogWriter
from tramontane.processes.models import ModelFiles
from tramontane.store.sources import SourceFiles
from tramontane.weights.fetcher import Fetcher

BUILDS = 2
"""So many compile at once; models that wait for their source take nobody's turn."""


@dataclass(kw_only=True)
class ArtifactMaker:
    """Everything a build needs of this machine."""

    layout: Layout
    sources: SourceFiles
    settings: BuildSettings
    engine: EngineFiles
    models: ModelFiles
    fetcher: Fetcher
    clock: Clock
    project_of: Callable[[ServiceId], str]
    """Builds of one project share caches, those of different projects never do."""
    _turns: asyncio.Semaphore = field(init=False, default_factory=lambda: asyncio.Semaphore(BUILDS))

    @asynccontextmanager
    async def make(self, deployment: Deployment) -> AsyncGenerator[Artifact]:
        """Give the artifact; it and its source stay where they are while the block runs.

        Raises ``TramontaneError`` with what the user should know.
        """
        path = self.layout.build_log(deployment.service_id, deployment.id)
        writer = await asyncio.to_thread(LogWriter, path)

        def log(text: str) -> None:
            writer.write(text, self.clock.now())

        async with AsyncExitStack() as held:
            try:
                match deployment.definition.source:
                    case DirectorySource(digest=digest):
                        await held.enter_async_context(self._turns)
                        held.enter_context(self.sources.hold(digest))
                        making = self._build(deployment, digest, log_to=log)
                        artifact = await held.enter_async_context(making)
                    case ModelSource(reference=reference):
                        await self.fetcher.ensure(reference, log, check_servable)
                        artifact = await asyncio.to_thread(self._prepare_model, reference)
            except TramontaneError as error:
                log(error.message)
                raise
            yield artifact

    @asynccontextmanager
    async def _build(
        self, deployment: Deployment, digest: str, *, log_to: Log
    ) -> AsyncGenerator[Artifact]:
        archive = self.sources.path(digest)
        if not archive.exists():
            raise BuildFailed(f"the uploaded source {digest} is gone; deploy it again")
        project = await asyncio.to_thread(self.project_of, deployment.service_id)
        async with build(
            archive,
            deployment.definition.build,
            settings=replace(self.settings, scope=project),
            log=log_to,
            start_command=deployment.definition.command,
            kind=deployment.definition.kind,
        ) as artifact:
            yield artifact

    def _prepare_model(self, reference: str) -> Artifact:
        path = self.models.find(reference)
        facts = self.models.inspect(reference)
        if facts.format is not WeightsFormat.GGUF:
            raise Unsupported(
                f"{reference} has its weights as {facts.format.value}, which no engine of this "
                "platform serves yet; give a GGUF file of the same model"
            )
        weights = Weights(
            paths=tuple(str(each.resolve()) for each in weight_files(path)),
            digest=self.models.digest(path),
        )
        facts = replace(facts, digest=weights.digest)
        return make_artifact(weights, facts, self.engine, alias=path.stem)


def check_servable(names: Sequence[str]) -> None:
    """Raise ``Unsupported`` for files that no engine here serves, before they are fetched."""
    if not any(each.endswith(".gguf") for each in names):
        raise Unsupported(
            "the model's weights are safetensors, which no engine of this platform serves yet; "
            "give a GGUF file of the same model"
        )
