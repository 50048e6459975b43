"""What a model's weights are made of, at their source and in the cache. Pure."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Algorithm(StrEnum):
    """How a source says what a file contains."""

    SHA256 = "sha256"
    GIT = "git"
    """SHA-1 over ``blob <size>`` and the content: how git names a file."""
    MD5 = "md5"


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What a source says about a file's content."""

    algorithm: Algorithm
    value: str
    """In lower-case hexadecimal digits."""

    def __str__(self) -> str:
        """Return ``algorithm:value``."""
        return f"{self.algorithm}:{self.value}"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A tar archive of one file, of which the file alone is wanted: what stands around it."""

    sha256: str
    """Of the archive."""
    head: str
    """The bytes before the content, in hexadecimal digits."""
    tail_bytes: int
    """Zeros after it."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a model at its source."""

    name: str
    """Path inside the model."""
    size_bytes: int
    location: str
    """What the source needs to hand it out; each source knows its own."""
    checksum: Checksum | None = None
    version: str = ""
    """Of the object, as the source tells versions apart; empty where the location says it."""
    archive: Archive | None = None
    """What the source has around it; the size is that of the file alone."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of a model as it is in the cache, verified."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """The files of one model; two with the same names and content are the same model."""

    files: tuple[StoredFile, ...]

    @property
    def digest(self) -> str:
        """``sha256:…`` over names and content."""
        content = sorted((each.name, each.sha256) for each in self.files)
        return f"sha256:{hashlib.sha256(json.dumps(content).encode()).hexdigest()}"

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(each.size_bytes for each in self.files)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A model in the cache, or on its way there, and who needs it."""

    references: tuple[str, ...]
    digest: str | None
    """None while it is being fetched."""
    files: tuple[StoredFile, ...]
    size_bytes: int
    done_bytes: int
    used_by: tuple[str, ...]
    """Services, as ``project/name``."""
    used_at: float
    fetched_at: float | None


def make_state(files: Iterable[RemoteFile]) -> str:
    """Return the state that pins what has no name for its content: see the module."""
    found = sorted((each.name, each.size_bytes, each.version) for each in files)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:32]


def is_safe_name(name: str) -> bool:
    """Return whether a file of a model may be called so: it becomes a path in a sandbox."""
    return (
        0 < len(name) <= 512
        and name.isprintable()
        and "\\" not in name
        and not any(part in {"", ".", ".."} for part in name.split("/"))
    )
