"""Makes a deployment's artifact: builds uploaded source, or prepares a model's engine.

Handed to ``reconcile.builds`` by the control plane. Writes the build's log as it goes.
"""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from tramontane.base.clock import Clock
from tramontane.base.errors import BuildFailed, InvalidRequest, TramontaneError
from tramontane.builders.build import build
from tramontane.builders.settings import BuildSettings, Log
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import DirectorySource, ModelSource
from tramontane.domain.deployment import Deployment
from tramontane.domain.ids import ServiceId
from tramontane.engines.llamacpp import EngineFiles, Weights, make_artifact
from tramontane.processes.layout import Layout
from tramontane.processes.logs import LogWriter
from tramontane.store.sources import SourceFiles

BUNDLED = "tiny"
GGUF_MAGIC = b"GGUF"


@dataclass(kw_only=True)
class ArtifactMaker:
    """Everything a build needs of this machine."""

    layout: Layout
    sources: SourceFiles
    settings: BuildSettings
    engine: EngineFiles
    clock: Clock
    project_of: Callable[[ServiceId], str]
    """Builds of one project share caches, those of different projects never do."""
    _digests: dict[tuple[str, int, int], str] = field(
        init=False, default_factory=dict[tuple[str, int, int], str]
    )

    async def make(self, deployment: Deployment) -> Artifact:
        """Return the artifact; raises ``TramontaneError`` with what the user should know."""
        path = self.layout.build_log(deployment.service_id, deployment.id)
        writer = await asyncio.to_thread(LogWriter, path)

        def log(text: str) -> None:
            writer.write(text, self.clock.now())

        try:
            match deployment.definition.source:
                case DirectorySource(digest=digest):
                    return await self._build(deployment, digest, log_to=log)
                case ModelSource(reference=reference):
                    return await asyncio.to_thread(self._prepare_model, reference)
        except TramontaneError as error:
            log(error.message)
            raise

    async def _build(self, deployment: Deployment, digest: str, *, log_to: Log) -> Artifact:
        archive = self.sources.path(digest)
        if not archive.exists():
            raise BuildFailed(f"the uploaded source {digest} is gone; deploy it again")
        project = await asyncio.to_thread(self.project_of, deployment.service_id)
        return await build(
            archive,
            deployment.definition.build,
            settings=replace(self.settings, scope=project),
            log=log_to,
            start_command=deployment.definition.command,
            kind=deployment.definition.kind,
        )

    def _prepare_model(self, reference: str) -> Artifact:
        if reference == BUNDLED:
            path = Path(str(files("tramontane.engines").joinpath("models/tiny.gguf")))
        else:
            path = Path(reference)
        try:
            path = path.resolve(strict=True)
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise InvalidRequest(
                f"cannot read the model {reference}: {error.strerror}; give {BUNDLED!r} "
                "or the absolute path of a GGUF file on the platform's machine",
                path="source.model",
            ) from error
        if magic != GGUF_MAGIC:
            raise InvalidRequest(
                f"{reference} is not a GGUF file: it begins with {magic!r}", path="source.model"
            )
        weights = Weights(path=str(path), digest=self._digest(path))
        return make_artifact(weights, self.engine, alias=path.stem)

    def _digest(self, path: Path) -> str:
        """Return the content's digest; large files are hashed once while they do not change."""
        found = path.stat()
        key = (str(path), found.st_mtime_ns, found.st_size)
        if key not in self._digests:
            with path.open("rb") as file:
                self._digests[key] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return self._digests[key]
