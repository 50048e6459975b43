"""The models of this machine, by the references that users write.

The control plane hands ``inspect`` to the API, and ``processes.artifacts`` prepares what it finds.
"""

import hashlib
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.domain.model import ModelFacts
from tramontane.engines.inspection import inspect_model, weight_files

BUNDLED = "tiny"
QUICKLY_HASHED_BYTES = 64 * 1024**2
"""Hashing this much takes less than a tenth of a second."""


@dataclass(kw_only=True)
class ModelFiles:
    """Finds, reads and hashes; large files are hashed once while they do not change."""

    _digests: dict[tuple[str, int, int], str] = field(
        init=False, default_factory=dict[tuple[str, int, int], str]
    )

    def find(self, reference: str) -> Path:
        """Return the file or directory of a model; raises ``InvalidRequest``."""
        bundled = files("tramontane.engines").joinpath("models/tiny.gguf")
        # Not resolved: parts of a model belong together by the names that links give them.
        path = Path(str(bundled)) if reference == BUNDLED else Path(reference).absolute()
        try:
            path.stat()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidRequest(
                f"cannot read the model {reference}: {why}; give {BUNDLED!r}, or on the platform's "
                "machine the absolute path of a GGUF file or of a directory with safetensors",
                path="source.model",
            ) from error
        return path

    def inspect(self, reference: str) -> ModelFacts:
        """Return what the files say; the digest too, if that takes no time."""
        path = self.find(reference)
        facts = inspect_model(path)
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
        return all(_version(each) in self._digests for each in weight_files(path))

    def _digest(self, path: Path) -> str:
        version = _version(path)
        if version not in self._digests:
            with path.open("rb") as file:
                self._digests[version] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return self._digests[version]


def _version(path: Path) -> tuple[str, int, int]:
    """Return what changes whenever the content does."""
    found = path.stat()
    return str(path), found.st_mtime_ns, found.st_size
