"""Decoders for the two streaming forms of the API: NDJSON (logs) and server-sent events (watch).

Both are fed with bytes as they arrive and return what is complete, so that the synchronous and
the asynchronous client, the command line and its chat share them.
"""

from collections.abc import Iterable

from tramontane.base.errors import Unavailable

LINE_BYTES_MAX = 16 * 1024**2
"""A longer line is no log line of ours; without a limit it would fill the memory."""


class LineDecoder:
    """Cuts a byte stream at line feeds; a carriage return before one is dropped."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes."""
        self._rest += chunk
        if b"\n" not in chunk:
            if len(self._rest) > LINE_BYTES_MAX:
                raise Unavailable("the server sent a line that does not end; try again")
            return []
        *lines, rest = bytes(self._rest).split(b"\n")
        self._rest = bytearray(rest)
        return [line.removesuffix(b"\r") for line in lines]

    def finish(self) -> list[bytes]:
        """Return the last line if the stream ended without a line feed."""
        rest, self._rest = bytes(self._rest), bytearray()
        return [rest] if rest else []


class NdjsonDecoder(LineDecoder):
    """Lines that hold a JSON document each; empty ones only keep the connection open."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the documents that ``chunk`` completes."""
        return [line for line in super().feed(chunk) if line.strip()]


class EventDecoder:
    """Server-sent events (WHATWG HTML §9.2); only ``data`` matters to this API."""

    def __init__(self) -> None:
        self._lines = LineDecoder()
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that ``chunk`` completes."""
        return self._decode(self._lines.feed(chunk))

    def finish(self) -> list[bytes]:
        """Return nothing: an event that was cut off is dropped, as the standard says."""
        return []

    def _decode(self, lines: Iterable[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
        return events


Decoder = LineDecoder | EventDecoder


def decoder_for(accept: str) -> Decoder:
    """Return the decoder for a stream of this media type."""
    return EventDecoder() if accept == "text/event-stream" else NdjsonDecoder()
