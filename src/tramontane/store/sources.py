"""Uploaded source archives: files named by their content, and a row for each that is whole.

The API streams uploads in; builders read the files. The row is written after the file has its
final name, so a row always stands for a whole file, whatever is killed when.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sqlalchemy import select

from tramontane.base.errors import InvalidRequest
from tramontane.base.ids import IdFactory
from tramontane.store.part import Part
from tramontane.store.tables import SOURCES

SIZE_MAX_BYTES = 512 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Source:
    """An archive that was uploaded whole."""

    digest: str
    size_bytes: int
    created_at: float


class Sources(Part):
    """Which archives there are."""

    def read_source(self, digest: str) -> Source | None:
        """Return the archive with this digest (``sha256:…``), if it was uploaded whole."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(SOURCES).where(SOURCES.c.digest == digest))
                .mappings()
                .first()
            )
        return None if row is None else Source(**dict(row))

    def record_source(self, digest: str, size_bytes: int, *, now: float) -> Source:
        """Note that the file of this digest is in its place."""
        with self._database.write() as connection:
            connection.execute(
                self._database.insert(SOURCES)
                .values(digest=digest, size_bytes=size_bytes, created_at=now)
                .on_conflict_do_nothing()
            )
        return Source(digest=digest, size_bytes=size_bytes, created_at=now)


class SourceFiles:
    """The directory that holds the archives."""

    def __init__(
        self, directory: Path, ids: IdFactory, *, size_max_bytes: int = SIZE_MAX_BYTES
    ) -> None:
        self._directory = directory
        self._ids = ids
        self.size_max_bytes = size_max_bytes

    def path(self, digest: str) -> Path:
        """Return where the archive with this digest is, or would be."""
        return self._directory / f"{digest.removeprefix('sha256:')}.tar.gz"

    def begin(self, digest: str) -> "Upload":
        """Start to receive an archive; use it in a ``with`` block, which removes what is left."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._directory / f".{self._ids('upl')}.partial"
        return Upload(digest, partial, self.path(digest), self.size_max_bytes)

    def remove_partial(self) -> None:
        """Remove what uploads left that were cut off; call before the first upload begins."""
        for path in self._directory.glob(".*.partial"):
            path.unlink(missing_ok=True)


class Upload:
    """One archive on its way in. Not thread-safe; each call may block on the disk."""

    def __init__(self, digest: str, partial: Path, final: Path, size_max_bytes: int) -> None:
        self._digest = digest
        self._partial = partial
        self._final = final
        self._size_max_bytes = size_max_bytes
        self._hash = hashlib.sha256()
        self._file: BinaryIO = os.fdopen(
            os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"
        )
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Append; raises ``InvalidRequest`` once the archive is too large."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self._size_max_bytes:
            raise InvalidRequest(
                f"the source archive is larger than {self._size_max_bytes // 1024**2} MiB; "
                "leave files out with .tramignore",
                path="source",
            )
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self) -> Path:
        """Put the archive in its place, durably; raises ``InvalidRequest`` if it is another one."""
        digest = f"sha256:{self._hash.hexdigest()}"
        if digest != self._digest:
            raise InvalidRequest(
                f"the uploaded archive is {digest}, not {self._digest}; upload it again",
                path="digest",
            )
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self._final)
        _sync_directory(self._final.parent)
        return self._final


def _sync_directory(directory: Path) -> None:
    # A rename is durable only when its directory is.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
