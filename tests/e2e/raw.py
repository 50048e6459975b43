"""Bytes to a port and the bytes that come back: for requests that no decent client would send."""

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

PIECE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Reply:
    """What a server did with it."""

    data: bytes
    closed: bool
    """It hung up."""

    @property
    def status(self) -> int:
        """The status of the first answer; 0 if there was none."""
        line = self.data.partition(b"\r\n")[0].split(b" ")
        known = len(line) > 1 and line[0].startswith(b"HTTP/") and line[1].isdigit()
        return int(line[1]) if known else 0

    @property
    def statuses(self) -> list[int]:
        """Of all answers on this connection."""
        return [int(part[2:5]) for part in self.data.split(b"HTTP/1.")[1:] if part[2:5].isdigit()]


def say(
    port: int, pieces: bytes | Iterable[bytes], *, half_close: bool = False, timeout_s: float = 10
) -> Reply:
    """Send and read until the server hangs up or has been silent for a moment after an answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        data = b""
        closed = False
        # A server may refuse and hang up while it is still being talked to.
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                for start in range(0, max(len(piece), 1), PIECE_BYTES):
                    connection.sendall(piece[start : start + PIECE_BYTES])
            if half_close:
                connection.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            connection.settimeout(0.3 if data else timeout_s)
            try:
                chunk = connection.recv(PIECE_BYTES)
            except TimeoutError:
                break
            except ConnectionResetError:
                closed = True
                break
            if not chunk:
                closed = True
                break
            data += chunk
        return Reply(data, closed)


def head(line: bytes, *headers: bytes) -> bytes:
    """Return a request without a body."""
    return b"\r\n".join((line, *headers, b"", b""))
