"""Reads the header of a GGUF file, versions 2 and 3.

The form: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The library ``gguf`` reads it
too, but maps the file into numpy arrays one number at a time, believes the file's lengths, and
brings numpy, requests and tqdm; a header needs none of that (docs/dependencies.md).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from tramontane.engines.headers.reading import Cursor, MalformedHeader

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_BYTES_MAX = 128 * 1024**2
"""Vocabularies and merges make a header; those of the largest take a tenth of this."""
KEYS_MAX = 65_536
TENSORS_MAX = 1_000_000
STRINGS_MAX = 8_000_000
"""In all lists of a header together: each takes time, whatever it holds."""
DIMENSIONS_MAX = 4
PARAMETERS_MAX = 10**15
"""In one tensor: a thousand times what the largest models have in all."""
KEY_BYTES_MAX = 65_535
TEXT_BYTES_MAX = 1024**2
"""A longer text is passed over: no fact is in it."""
NUMBERS_KEPT_MAX = 4096
"""A longer list of numbers is counted, not kept: per layer there are fewer, per token more."""
ALIGNMENT = 32

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_NUMBERS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9

TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}
"""By number: name, how many numbers make a block, and how many bytes (ggml's ``type_traits``)."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list in the metadata."""

    count: int
    numbers: tuple[int | float, ...] | None = None
    """What is in it; None if that is text, or more than a fact could be made of."""


Value = bool | int | float | str | Listed | None


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor's line in the header."""

    name: str
    shape: tuple[int, ...]
    type_number: int
    offset: int
    """From the start of the data."""

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        product = 1
        for length in self.shape:
            product *= length
        return product

    @property
    def size_bytes(self) -> int | None:
        """How much room they take; None for a type that is not known here."""
        known = TENSOR_TYPES.get(self.type_number)
        return None if known is None else -(-self.parameters // known[1]) * known[2]


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """Everything before the weights."""

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]


def read_gguf(file: BinaryIO, size_bytes: int) -> GgufHeader:
    """Return the header of a file of this size; raises ``MalformedHeader``."""
    cursor = Cursor(file, size_bytes, HEADER_BYTES_MAX)
    magic = cursor.take(len(MAGIC), "the mark GGUF")
    if magic != MAGIC:
        raise MalformedHeader(f"it is not a GGUF file: it begins with {magic!r}")
    version = cursor.number(_U32, "the version")
    if version & 0xFFFF == 0:
        raise MalformedHeader("it is made for big-endian machines; convert it anew for this one")
    if version not in VERSIONS:
        raise MalformedHeader(f"it has GGUF version {version}; known are 2 and 3: convert it anew")
    tensor_count = _count(cursor, "tensors", TENSORS_MAX)
    key_count = _count(cursor, "keys", KEYS_MAX)
    metadata = _Metadata(cursor).read(key_count)
    tensors = _tensors(cursor, tensor_count)
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise MalformedHeader(f"general.alignment is {alignment}, which is no power of two")
    _check_extent(tensors, -(-cursor.position // alignment) * alignment, size_bytes)
    return GgufHeader(version=version, metadata=metadata, tensors=tensors)


def _count(cursor: Cursor, what: str, most: int) -> int:
    count: int = cursor.number(_U64, f"the number of {what}")
    if count > most:
        raise MalformedHeader(f"it claims {count} {what}; more than {most} are not believed")
    return count


def _text(cursor: Cursor, what: str, most: int) -> str:
    length = cursor.number(_U64, f"the length of {what}")
    if length > most:
        raise MalformedHeader(f"{what} claims {length} bytes; at most {most} are believed")
    try:
        return cursor.take(length, what).decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedHeader(f"{what} is not UTF-8") from error


class _Metadata:
    """Reads the keys and values."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._strings = 0

    def read(self, count: int) -> dict[str, Value]:
        """Return ``count`` values by key."""
        metadata: dict[str, Value] = {}
        for position in range(count):
            key = _text(self._cursor, f"the name of key {position + 1}", KEY_BYTES_MAX)
            if key in metadata:
                raise MalformedHeader(f"the key {key[:80]!r} stands there twice")
            kind = self._cursor.number(_U32, f"the type of {key[:80]!r}")
            metadata[key] = self._value(kind, f"the value of {key[:80]!r}")
        return metadata

    def _value(self, kind: int, what: str) -> Value:
        if kind == _STRING:
            return self._string(what)
        if kind == _ARRAY:
            return self._list(what)
        form = _NUMBERS.get(kind)
        if form is None:
            raise MalformedHeader(f"{what} has type {kind}, which GGUF does not know")
        return self._cursor.number(form, what)

    def _string(self, what: str) -> str | None:
        length = self._cursor.number(_U64, f"the length of {what}")
        if length > TEXT_BYTES_MAX:
            self._cursor.skip(length, what)
            return None
        return self._cursor.take(length, what).decode("utf-8", "replace")

    def _list(self, what: str) -> Listed:
        cursor = self._cursor
        kind = cursor.number(_U32, f"the type in {what}")
        count = cursor.number(_U64, f"the number of items in {what}")
        if kind == _STRING:
            self._strings += count
            if self._strings > STRINGS_MAX:
                raise MalformedHeader(
                    f"{what} claims {count} texts; more than {STRINGS_MAX} in all are not believed"
                )
            for _ in range(count):
                cursor.skip(cursor.number(_U64, what), what)
            return Listed(count=count)
        form = _NUMBERS.get(kind)
        if form is None:
            raise MalformedHeader(f"{what} is a list of type {kind}, which is not supported")
        if count > NUMBERS_KEPT_MAX:
            cursor.skip(count * form.size, what)
            return Listed(count=count)
        raw = cursor.take(count * form.size, what)
        return Listed(count=count, numbers=tuple(each[0] for each in form.iter_unpack(raw)))


def _tensors(cursor: Cursor, count: int) -> tuple[Tensor, ...]:
    tensors: list[Tensor] = []
    for position in range(count):
        name = _text(cursor, f"the name of tensor {position + 1}", KEY_BYTES_MAX)
        what = f"tensor {name[:80]!r}"
        dimensions = cursor.number(_U32, what)
        if dimensions > DIMENSIONS_MAX:
            raise MalformedHeader(
                f"{what} claims {dimensions} dimensions; GGUF has {DIMENSIONS_MAX} at most"
            )
        shape = struct.unpack(f"<{dimensions}Q", cursor.take(8 * dimensions, what))
        type_number = cursor.number(_U32, what)
        offset = cursor.number(_U64, what)
        tensor = Tensor(name=name, shape=shape, type_number=type_number, offset=offset)
        if tensor.parameters > PARAMETERS_MAX:
            raise MalformedHeader(f"{what} claims {tensor.parameters} parameters")
        tensors.append(tensor)
    return tuple(tensors)


def _check_extent(tensors: tuple[Tensor, ...], data_start: int, size_bytes: int) -> None:
    """Raise unless all weights are in the file: most damage is a fetch that broke off."""
    for tensor in tensors:
        length = tensor.size_bytes
        if length is not None and data_start + tensor.offset + length > size_bytes:
            raise MalformedHeader(
                f"tensor {tensor.name[:80]!r} ends at byte {data_start + tensor.offset + length}, "
                f"but the file has {size_bytes}: it is damaged, or was not fetched to its end"
            )
