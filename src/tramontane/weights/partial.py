"""One file on its way into the cache: its bytes, and which parts of it are safely on the disk.

    data     the file at its full length, with holes where parts are missing
    parts    first line: what is fetched and how it is cut; then one line for each note of how far
             a part is: its number, and how many of its bytes are here

A line is written after the bytes that it tells of are on the disk, so whatever is killed when, what
the list names is there. Another content, or another way to cut it, starts anew. One process holds a
file at a time, by the kernel's lock on ``data``.
"""

import fcntl
import json
import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tramontane.base.files import sync_directory
from tramontane.weights.contents import Hash

CHUNK_BYTES = 1024**2


@dataclass(frozen=True, kw_only=True)
class Part:
    """A range of bytes that is fetched by one request: what is missing of a part."""

    number: int
    start: int
    end: int
    """One past the last byte."""


class Partial:
    """An open file on its way; several threads may write parts of it at once."""

    def __init__(self, folder: Path, descriptor: int, size_bytes: int, part_bytes: int) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self._journal = folder / "parts"
        self._lock = threading.Lock()
        self.size_bytes = size_bytes
        self.part_bytes = part_bytes
        self._here = self._read_journal()

    @classmethod
    def hold(cls, folder: Path, size_bytes: int, part_bytes: int) -> Self | None:
        """Return the file if nobody else has it at present."""
        folder.mkdir(mode=0o700, exist_ok=True)
        data = folder / "data"
        descriptor = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last holder may have finished it, and then this is no longer the file we mean.
            if os.path.samestat(os.fstat(descriptor), data.stat()):
                return cls(folder, descriptor, size_bytes, part_bytes)
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        return None

    @property
    def missing(self) -> list[Part]:
        """What is missing of the parts that are not whole yet, in order."""
        cut = range(0, max(self.size_bytes, 1), self.part_bytes)
        parts: list[Part] = []
        for number, start in enumerate(cut):
            end, here = min(start + self.part_bytes, self.size_bytes), self._here.get(number)
            if here is None or start + here < end:
                parts.append(Part(number=number, start=start + (here or 0), end=end))
        return parts

    @property
    def bytes_left(self) -> int:
        """Bytes of the missing parts."""
        return sum(part.end - part.start for part in self.missing)

    def write(self, chunk: bytes, at: int) -> None:
        """Write bytes of a part."""
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, at)
            view, at = view[written:], at + written

    def note(self, part: Part, at: int) -> None:
        """Remember that everything of a part that lies before ``at`` was written."""
        os.fdatasync(self._descriptor)
        here = at - part.number * self.part_bytes
        with self._lock:
            with self._journal.open("a", encoding="ascii") as file:
                file.write(f"{part.number} {here}\n")
            self._here[part.number] = here

    def restart(self, part_bytes: int) -> None:
        """Forget all parts, and cut the file anew."""
        self.part_bytes = part_bytes
        self._here = self._begin()

    def feed(self, hashes: Sequence[Hash], stopped: Callable[[], bool]) -> None:
        """Give the content to hashes; it makes sense for a whole file only."""
        at = 0
        while (chunk := os.pread(self._descriptor, CHUNK_BYTES, at)) and not stopped():
            at += len(chunk)
            for each in hashes:
                each.update(chunk)

    def publish(self, blob: Path) -> None:
        """Move the whole, verified file to its place, durably; then nothing is left here."""
        os.fchmod(self._descriptor, 0o444)
        os.fsync(self._descriptor)
        (self._folder / "data").rename(blob)
        sync_directory(blob.parent)
        self.discard()

    def discard(self) -> None:
        """Remove what is here."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of the file; whoever holds it next goes on."""
        os.close(self._descriptor)

    def _read_journal(self) -> dict[int, int]:
        try:
            header, *lines = self._journal.read_text("ascii").split("\n")
        except FileNotFoundError:
            return self._begin()
        if header != self._header or os.fstat(self._descriptor).st_size != self.size_bytes:
            return self._begin()
        # The last line has no end if its writer was killed; it is cut off, or the next one would
        # continue it.
        *whole, _ = lines or [""]
        os.truncate(self._journal, len("\n".join([header, *whole, ""])))
        return {int(number): int(here) for number, here in map(str.split, whole)}

    def _begin(self) -> dict[int, int]:
        self._journal.unlink(missing_ok=True)
        os.ftruncate(self._descriptor, 0)
        os.ftruncate(self._descriptor, self.size_bytes)
        fresh = self._journal.with_name("parts.new")
        fresh.write_text(f"{self._header}\n", "ascii")
        fresh.replace(self._journal)
        return {}

    @property
    def _header(self) -> str:
        return json.dumps({"size_bytes": self.size_bytes, "part_bytes": self.part_bytes})
