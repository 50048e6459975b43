"""The models of this machine, by the references that users write.

The control plane hands ``inspect`` to the API, and ``processes.artifacts`` prepares what it finds.
"""

import hashlib
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import ModelSource
from tramontane.domain.deployment import Deployment
from tramontane.domain.model import ModelFacts
from tramontane.domain.reference import (
    BUNDLED,
    BundledReference,
    FileReference,
    HubReference,
    parse_reference,
)
from tramontane.engines.inspection import inspect_model, weight_files
from tramontane.plan.weights import is_projector
from tramontane.weights.fetcher import Fetcher
from tramontane.weights.local import check_unchanged

QUICKLY_HASHED_BYTES = 64 * 1024**2
"""Hashing this much takes less than a tenth of a second."""


@dataclass(kw_only=True)
class ModelFiles:
    """Finds, reads and hashes; large files are hashed once while they do not change."""

    fetcher: Fetcher
    _digests: dict[tuple[str, int, int], str] = field(
        init=False, default_factory=dict[tuple[str, int, int], str]
    )

    def find(self, text: str) -> Path:
        """Return the file or directory of a model; raises ``InvalidRequest`` or ``NotFound``."""
        match parse_reference(text):
            case BundledReference(name=name):
                bundled = files("tramontane.engines").joinpath(f"models/{name}.gguf")
                return Path(str(bundled))
            case FileReference(path=path):
                return _check_there(Path(path))
            case reference:
                return _model_in(self.fetcher.find(reference))

    def check_unchanged(self, deployment: Deployment) -> None:
        """Raise ``InvalidRequest`` if a model's files on this machine are not what was deployed."""
        source = deployment.definition.source
        if isinstance(source, ModelSource):
            reference = parse_reference(source.reference)
            if isinstance(reference, FileReference):
                check_unchanged(reference)

    def inspect(self, text: str) -> ModelFacts:
        """Return what the files say; the digest too, if that takes no time."""
        pinned = self.fetcher.pin(text)
        path = self.find(pinned)
        facts = replace(inspect_model(path), revision=_revision_of(pinned))
        if facts.size_bytes > QUICKLY_HASHED_BYTES and not self._are_hashed(path):
            return facts
        return replace(facts, digest=self.digest(path))

    def digest(self, path: Path) -> str:
        """Return ``sha256:…`` of the weights; of several files, over the digests of each."""
        digests = [self._digest(each) for each in weight_files(path)]
        if len(digests) == 1:
            return digests[0]
        return f"sha256:{hashlib.sha256(' '.join(digests).encode()).hexdigest()}"

    def _are_hashed(self, path: Path) -> bool:
        return all(
            self.fetcher.cache.content_of(each) or _version(each) in self._digests
            for each in weight_files(path)
        )

    def _digest(self, path: Path) -> str:
        if known := self.fetcher.cache.content_of(path):
            return f"sha256:{known}"
        version = _version(path)
        if version not in self._digests:
            with path.open("rb") as file:
                self._digests[version] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return self._digests[version]


def _version(path: Path) -> tuple[str, int, int]:
    """Return what changes whenever the content does."""
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size


def _check_there(path: Path) -> Path:
    """Return the path; raise ``InvalidRequest`` if it leads nowhere."""
    # Not resolved: parts of a model belong together by the names that links give them.
    try:
        path.stat()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidRequest(
            f"cannot read the model {path}: {why}; give {BUNDLED[0]!r}, or on the platform's "
            "machine the absolute path of a GGUF file or of a directory with safetensors",
            path="source.model",
        ) from error
    return path


def _model_in(folder: Path) -> Path:
    """Return what engines open of a fetched model: the first GGUF file, or all of the folder."""
    ggufs = sorted(each for each in folder.rglob("*.gguf") if not is_projector(each.name))
    return ggufs[0] if ggufs else folder


def _revision_of(text: str) -> str | None:
    reference = parse_reference(text)
    return reference.revision if isinstance(reference, HubReference) else None
