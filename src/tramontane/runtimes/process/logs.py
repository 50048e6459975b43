"""What a program prints, as stamped lines in a file of bounded size.

One JSON object per line: ``{"at": 1799.25, "stream": "stdout", "text": "…"}``; ``at`` is seconds
since the epoch, ``stream`` is ``stdout``, ``stderr`` or, for our own remarks, ``runtime``. When
the file is full it becomes ``<path>.1``, ``.1`` becomes ``.2`` and so on; the oldest is deleted.
``tail`` is what messages about a failed start quote. Used by ``supervisor``.
"""

import asyncio
import json
import os
from collections import deque
from pathlib import Path

from tramontane.base.clock import Clock

_LINE_BYTES_MAX = 16 * 1024
"""A longer line is split, so that a program that prints none cannot fill our memory."""
_TAIL_LINES = 20
_TAIL_TEXT_MAX = 300


class LogFile:
    """Appends lines; never raises on a full disk, because the program must run on."""

    def __init__(self, path: Path, *, bytes_max: int, files_max: int, clock: Clock) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._files_max = files_max
        self._clock = clock
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = self._open()
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, lines: list[bytes]) -> None:
        """Append lines that arrived together, with the same stamp."""
        at = round(self._clock.now(), 6)
        texts = [line.decode(errors="replace") for line in lines]
        self._tail.extend(text[:_TAIL_TEXT_MAX] for text in texts)
        for text in texts:
            record = {"at": at, "stream": stream, "text": text}
            self._append(json.dumps(record, ensure_ascii=False).encode() + b"\n")

    def tail(self, count: int) -> list[str]:
        """Return the last lines."""
        return list(self._tail)[-count:]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _append(self, data: bytes) -> None:
        try:
            if self._size and self._size + len(data) > self._bytes_max:
                self._rotate()
            self._size += os.write(self._fd, data)
        except OSError:
            return

    def _rotate(self) -> None:
        for number in range(self._files_max - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        if self._files_max > 0:
            self._path.replace(self._numbered(1))
        else:
            self._path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = self._open()
        self._size = 0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._path, flags, 0o600)


class LineProtocol(asyncio.Protocol):
    """Cuts one pipe of the program into lines."""

    def __init__(self, stream: str, log: LogFile) -> None:
        self._stream = stream
        self._log = log
        self._rest = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Take what the program wrote."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) >= _LINE_BYTES_MAX:
            lines.append(rest[:_LINE_BYTES_MAX])
            rest = rest[_LINE_BYTES_MAX:]
        self._rest = rest
        if lines:
            self._log.write(self._stream, lines)

    def connection_lost(self, exc: Exception | None) -> None:
        """Write the last line, even without its newline."""
        if self._rest:
            self._log.write(self._stream, [self._rest])
            self._rest = b""
        self.ended.set()
