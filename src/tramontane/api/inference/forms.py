"""``multipart/form-data`` with one file in it, passed on while it arrives.

Starlette's own reader would put the file down in a place of its own first, and hold each of many
small fields; here one file goes where the caller says, and the rest must be small.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tramontane.base.errors import InvalidRequest

FILE = "file"
CHUNK_BYTES = 1024**2
FIELDS_BYTES_MAX = 64 * 1024
FIELDS_MAX = 64


@dataclass(kw_only=True)
class Form:
    """What came beside the file's content."""

    fields: dict[str, str] = field(default_factory=dict[str, str])
    file_name: str | None = None
    """None: no file came."""


class _Reader:
    """Follows the parser from part to part."""

    def __init__(self) -> None:
        self.form = Form()
        self.content = bytearray()
        """Of the file: what has arrived and was not passed on yet."""
        self.ended = False
        self._header = bytearray()
        self._value = bytearray()
        self._disposition = b""
        self._name: str | None = None
        self._field = bytearray()
        self._bytes = 0

    def make_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_to_header,
                "on_header_value": self._add_to_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def _begin_part(self) -> None:
        self._disposition, self._name = b"", None
        self._field.clear()

    def _add_to_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _add_to_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name != FILE:
            return
        if self.form.file_name is not None:
            raise InvalidRequest("more than one file was sent; send one", path=FILE)
        self.form.file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self.content += data[start:end]
            return
        self._bytes += end - start
        if self._bytes > FIELDS_BYTES_MAX or len(self.form.fields) >= FIELDS_MAX:
            raise InvalidRequest("the form's fields are too many or too large")
        self._field += data[start:end]

    def _end_part(self) -> None:
        if self._name and self._name != FILE:
            self.form.fields[self._name] = self._field.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


async def receive_form(request: Request, write: Callable[[bytes], None]) -> Form:
    """Return the form; its file's content went to ``write``, which may block, piece by piece.

    Raises ``InvalidRequest`` if it is no such form, and what ``write`` raises.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest("send the file as multipart/form-data", path=FILE)
    reader = _Reader()
    try:
        parser = reader.make_parser(boundary)
        async for chunk in request.stream():
            parser.write(chunk)
            if len(reader.content) >= CHUNK_BYTES:
                # A thread for each small chunk would cost more than the writing.
                await asyncio.to_thread(write, bytes(reader.content))
                reader.content.clear()
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequest(f"the form cannot be read: {error}") from error
    if not reader.ended:
        raise InvalidRequest("the form ended early; send it again")
    await asyncio.to_thread(write, bytes(reader.content))
    return reader.form
