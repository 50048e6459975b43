"""Contents of files, on disk under their ids: streamed in while hashed, never in memory whole.

The API streams uploads in and reads; batches read requests and append results. Which of them are
still wanted, rows say (``store.files``). Every method blocks on the disk.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tramontane.base.errors import TramontaneError
from tramontane.base.files import sync_directory

_PARTIAL = ".partial"


class FileContents:
    """The directory of one platform's contents, closed to all others; one process serves it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, file_id: str) -> Path:
        """Return where the content of this file is, or would be."""
        assert file_id.isascii()
        assert file_id.replace("_", "").isalnum(), "an id of ours, never a path"
        return self._directory / file_id

    def begin(self, file_id: str, *, bytes_max: int, too_large: TramontaneError) -> "Incoming":
        """Start to receive a content; use it in a ``with`` block, which removes what is left.

        ``too_large`` is raised for one of more than ``bytes_max``.
        """
        self._make_directory()
        final = self.path(file_id)
        partial = final.with_name(f".{file_id}{_PARTIAL}")
        return Incoming(partial, final, bytes_max=bytes_max, too_large=too_large)

    def append(self, file_id: str) -> BinaryIO:
        """Open a content for writing at its end, made if there is none."""
        self._make_directory()
        path = self.path(file_id)
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        sync_directory(self._directory)
        return os.fdopen(descriptor, "r+b", buffering=0)

    def remove(self, file_id: str) -> None:
        """Remove a content; silence if there is none. Who reads it goes on to its end."""
        self.path(file_id).unlink(missing_ok=True)

    def list_written_before(self, moment: float) -> list[str]:
        """Return the ids of contents that nobody has written to since, by id."""
        found: list[str] = []
        for path in sorted(self._directory.glob("[!.]*")):
            # Somebody may delete it while we look.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= moment:
                    found.append(path.name)
        return found

    def remove_partial(self) -> None:
        """Remove what uploads left that were cut off; call before the first upload begins."""
        for path in self._directory.glob(f".*{_PARTIAL}"):
            path.unlink(missing_ok=True)

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)


class Incoming:
    """One content on its way in. Not thread-safe."""

    def __init__(
        self, partial: Path, final: Path, *, bytes_max: int, too_large: TramontaneError
    ) -> None:
        self._partial = partial
        self._final = final
        self._bytes_max = bytes_max
        self._too_large = too_large
        self._hash = hashlib.sha256()
        self._ended = True
        self._file: BinaryIO = os.fdopen(
            os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb"
        )
        self.size_bytes = 0
        self._newlines = 0

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

    @property
    def digest(self) -> str:
        """The SHA-256 of what came so far."""
        return f"sha256:{self._hash.hexdigest()}"

    @property
    def lines(self) -> int:
        """The lines that came so far; the last may lack its end."""
        return self._newlines + (not self._ended)

    def write(self, chunk: bytes) -> None:
        """Append; raises ``too_large`` once there is too much."""
        self.size_bytes += len(chunk)
        if self.size_bytes > self._bytes_max:
            raise self._too_large
        self._hash.update(chunk)
        self._newlines += chunk.count(b"\n")
        if chunk:
            self._ended = chunk.endswith(b"\n")
        self._file.write(chunk)

    def finish(self) -> None:
        """Put the content in its place, durably."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self._final)
        sync_directory(self._final.parent)
