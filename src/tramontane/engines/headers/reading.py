"""The one way in which header bytes are read: forward, in small pieces, within limits.

Lengths come from the file, so each is held against what is left of it before anything is read.
"""

import json
import struct
from typing import Any, BinaryIO, cast

from tramontane.base.errors import InvalidRequest

PIECE_BYTES = 256 * 1024


class MalformedHeader(InvalidRequest):
    """A model's file is not what it should be; the message says where and how."""


class Cursor:
    """A place in a file that only moves forward, and never past ``limit``."""

    def __init__(self, file: BinaryIO, size_bytes: int, limit_bytes: int) -> None:
        self._file = file
        self._size = size_bytes
        self._limit = limit_bytes
        self._piece = b""
        self._at = 0
        self._before = 0
        """Bytes of the file before the piece in hand."""

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._before + self._at

    def take(self, count: int, what: str) -> bytes:
        """Return the next ``count`` bytes; ``what`` they are stands in the error."""
        self._check(count, what)
        if self._at + count > len(self._piece):
            self._fill(count, what)
        start = self._at
        self._at += count
        return self._piece[start : self._at]

    def skip(self, count: int, what: str) -> None:
        """Go past ``count`` bytes."""
        self._check(count, what)
        self._at += count
        if self._at > len(self._piece):
            self._before, self._at, self._piece = self.position, 0, b""
            self._file.seek(self._before)

    def number(self, form: struct.Struct, what: str) -> Any:
        """Return the next number of this form."""
        return form.unpack(self.take(form.size, what))[0]

    def _check(self, count: int, what: str) -> None:
        end = self.position + count
        if end > self._size:
            raise MalformedHeader(
                f"{what} ends at byte {end}, but the file has {self._size}: it is damaged, or was "
                "not fetched to its end"
            )
        if end > self._limit:
            raise MalformedHeader(
                f"{what} ends at byte {end}, but no header is longer than {self._limit} bytes"
            )

    def _fill(self, count: int, what: str) -> None:
        rest = self._piece[self._at :]
        self._before, self._at = self.position, 0
        wanted = max(count - len(rest), PIECE_BYTES)
        self._piece = rest + self._file.read(wanted)
        if len(self._piece) < count:
            raise MalformedHeader(f"the file became shorter while {what} was read")


def parse_json(raw: bytes, what: str) -> dict[str, Any]:
    """Return a JSON object whose keys stand there once each."""
    try:
        value = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise MalformedHeader(f"{what} is not JSON: {_short(error)}") from error
    if not isinstance(value, dict):
        raise MalformedHeader(f"{what} is not a JSON object")
    return cast("dict[str, Any]", value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key stands there twice")
    return value


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
