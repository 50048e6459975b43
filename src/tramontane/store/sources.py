"""Uploaded source archives: files named by their content, and a row for each that is whole.

The API streams uploads in; builders read the files; garbage collection removes what no deployment
names. The row is written after the file has its final name and deleted before the file is, so a
row always stands for a whole file, whatever is killed when.

A client that was told "it is here" deploys next, and must not find it gone. So the answer marks
the file as used now, which keeps it for a while, and a deployment takes hold of the row in its own
transaction: from then on the row cannot be forgotten.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from sqlalchemy import Connection, delete, select

from tramontane.base.errors import InvalidRequest
from tramontane.base.ids import IdFactory
from tramontane.domain.inventory import Item, ItemKind
from tramontane.store.part import Part
from tramontane.store.tables import DEPLOYMENTS, SOURCES

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

    def forget_source(self, digest: str) -> bool:
        """Delete the row unless a deployment names it; return whether there is no row now."""
        with self._database.write() as connection:
            # First the row, then the question: a deployment that is about to name it has the row
            # in its hands, and once we have it every such deployment can be seen.
            hold_source(connection, digest)
            named = select(DEPLOYMENTS.c.id).where(DEPLOYMENTS.c.source_digest == digest).limit(1)
            if connection.execute(named).first() is not None:
                return False
            connection.execute(delete(SOURCES).where(SOURCES.c.digest == digest))
            return True


def hold_source(connection: Connection, digest: str) -> bool:
    """Return whether there is a row; it stays as it is until the transaction ends."""
    statement = select(SOURCES.c.digest).where(SOURCES.c.digest == digest).with_for_update()
    return connection.execute(statement).first() is not None


class SourceFiles:
    """The directory that holds the archives; one object for all who use it.

    Every method blocks on the disk. What depends on the order of steps (an upload that comes while
    the same archive is being removed) is settled by a lock of this object: one process serves a
    directory, and what it had in its hands when it was killed is nobody's any more.
    """

    def __init__(
        self, directory: Path, ids: IdFactory, *, size_max_bytes: int = SIZE_MAX_BYTES
    ) -> None:
        self._directory = directory
        self._ids = ids
        self._lock = threading.Lock()
        self._held: list[str] = []
        self.size_max_bytes = size_max_bytes

    def path(self, digest: str) -> Path:
        """Return where the archive with this digest is, or would be."""
        return self._directory / f"{digest.removeprefix('sha256:')}.tar.gz"

    def begin(self, digest: str) -> "Upload":
        """Start to receive an archive; use it in a ``with`` block, which removes what is left."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = self._directory / f".{self._ids('upl')}.partial"
        return Upload(digest, partial, self._place, self.size_max_bytes)

    def mark_used(self, digest: str, now: float) -> bool:
        """Note that somebody counts on this archive from now on; False if it is not there."""
        with self._lock:
            try:
                os.utime(self.path(digest), (now, now))
            except FileNotFoundError:
                return False
            return True

    @contextmanager
    def hold(self, digest: str) -> Generator[Path]:
        """Give the archive's path; from now on it is not removed until the block ends.

        This never blocks, so a removal that has begun goes on: no deployment named the archive
        then, and an upload of the same waits in ``Upload.finish`` until it can take the place.
        """
        self._held.append(digest)
        try:
            yield self.path(digest)
        finally:
            self._held.remove(digest)

    def list_items(self) -> list[Item]:
        """Return every archive that came in whole."""
        items: list[Item] = []
        for path in self._directory.glob("[!.]*.tar.gz"):
            found = path.stat()
            digest = f"sha256:{path.name.removesuffix('.tar.gz')}"
            items.append(
                Item(
                    kind=ItemKind.ARCHIVE,
                    name=digest,
                    size_bytes=found.st_size,
                    used_at=found.st_mtime,
                )
            )
        return items

    def remove(self, item: Item, let_go: Callable[[], bool]) -> bool:
        """Remove an archive unless it was used since it was listed, or is held.

        ``let_go`` is asked when nobody can begin to use it, and says no if it is needed after all.
        """
        path = self.path(item.name)
        with self._lock:
            if item.name in self._held or not path.exists():
                return False
            if path.stat().st_mtime != item.used_at or not let_go():
                return False
            path.unlink()
            return True

    def remove_partial(self) -> None:
        """Remove what uploads left that were cut off; call before the first upload begins."""
        for path in self._directory.glob(".*.partial"):
            path.unlink(missing_ok=True)

    def _place(self, partial: Path, digest: str) -> Path:
        final = self.path(digest)
        with self._lock:
            partial.rename(final)
        _sync_directory(final.parent)
        return final


class Upload:
    """One archive on its way in. Not thread-safe; each call may block on the disk."""

    def __init__(
        self,
        digest: str,
        partial: Path,
        place: Callable[[Path, str], Path],
        size_max_bytes: int,
    ) -> None:
        self._digest = digest
        self._partial = partial
        self._place = place
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
        return self._place(self._partial, digest)


def _sync_directory(directory: Path) -> None:
    # A rename is durable only when its directory is.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
