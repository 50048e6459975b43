"""Results of a batch: two files that grow by whole lines, each on disk before it counts.

They are the only record of which requests are done. Killed at any point, a file ends with a whole
line or with part of one that was not counted, which ``open_results`` takes away.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from tramontane.store.contents import FileContents


@dataclass(kw_only=True)
class Results:
    """One batch's results, open for more; every method blocks on the disk.

    A lock keeps ``close`` from pulling a file away under whoever was left writing when the platform
    was told to stop.
    """

    output: BinaryIO
    errors: BinaryIO
    done: set[int] = field(default_factory=set[int])
    """The numbers of requests that have a result."""
    succeeded: int = 0
    failed: int = 0
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def add(self, number: int, line: bytes, *, succeeded: bool) -> None:
        """Append a result, and return when it is on disk."""
        file = self.output if succeeded else self.errors
        with self._lock:
            self._append(file, number, line)
            os.fdatasync(file.fileno())
            self._count(number, succeeded=succeeded)

    def add_failures(self, lines: Iterator[tuple[int, bytes]]) -> None:
        """Append the results of all that was never sent, and return when they are on disk."""
        with self._lock:
            for number, line in lines:
                self._append(self.errors, number, line)
                self._count(number, succeeded=False)
            os.fdatasync(self.errors.fileno())

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self.output.close()
            self.errors.close()

    def _append(self, file: BinaryIO, number: int, line: bytes) -> None:
        assert number not in self.done, f"request {number} has a result already"
        rest = memoryview(line)
        while rest:
            rest = rest[file.write(rest) :]

    def _count(self, number: int, *, succeeded: bool) -> None:
        self.done.add(number)
        if succeeded:
            self.succeeded += 1
        else:
            self.failed += 1


def open_results(
    contents: FileContents,
    output_file: str,
    error_file: str,
    read_number: Callable[[bytes], int],
) -> Results:
    """Return the results so far, open for more; ``read_number`` knows what a line belongs to."""
    results = Results(output=contents.append(output_file), errors=contents.append(error_file))
    try:
        for number in _read_whole_lines(results.output, read_number):
            results.done.add(number)
            results.succeeded += 1
        for number in _read_whole_lines(results.errors, read_number):
            results.done.add(number)
            results.failed += 1
    except BaseException:
        results.close()
        raise
    return results


def _read_whole_lines(file: BinaryIO, read_number: Callable[[bytes], int]) -> Iterator[int]:
    whole_bytes = 0
    with open(file.fileno(), "rb", closefd=False) as reader:
        reader.seek(0)
        for line in reader:
            if not line.endswith(b"\n"):
                break
            whole_bytes += len(line)
            yield read_number(line)
    os.ftruncate(file.fileno(), whole_bytes)
