"""Reads the headers of safetensors files and the index that joins several into one model.

The form: https://huggingface.co/docs/safetensors, section "Format". The library of that name maps
the file and hands out tensors; a header is eight bytes and a JSON object.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from tramontane.engines.headers.reading import Cursor, MalformedHeader, parse_json

HEADER_BYTES_MAX = 100 * 1000**2
"""The library's own limit."""
INDEX_BYTES_MAX = 64 * 1024**2
SHARDS_MAX = 4096
DIMENSIONS_MAX = 32

_U64 = struct.Struct("<Q")
_METADATA = "__metadata__"


@dataclass(frozen=True, kw_only=True)
class SafeTensor:
    """One tensor's entry in the header."""

    name: str
    dtype: str
    """Such as ``BF16``."""
    parameters: int
    size_bytes: int


def read_safetensors(file: BinaryIO, size_bytes: int) -> tuple[SafeTensor, ...]:
    """Return the tensors of a file of this size; raises ``MalformedHeader``."""
    cursor = Cursor(file, size_bytes, HEADER_BYTES_MAX + _U64.size)
    length = cursor.number(_U64, "the length of the header")
    header = parse_json(cursor.take(length, "the header"), "the header")
    header.pop(_METADATA, None)
    return tuple(
        _tensor(name, entry, size_bytes - cursor.position) for name, entry in header.items()
    )


def read_index(raw: bytes) -> tuple[str, ...]:
    """Return the names of the files that ``model.safetensors.index.json`` joins, in order."""
    shards = parse_json(raw, "the index").get("weight_map")
    if not isinstance(shards, dict):
        raise MalformedHeader("the index has no weight_map")
    names = sorted({str(each) for each in cast("dict[str, Any]", shards).values()})
    if len(names) > SHARDS_MAX:
        raise MalformedHeader(
            f"the index names {len(names)} files; more than {SHARDS_MAX} cannot be"
        )
    for name in names:
        if not name.endswith(".safetensors") or PurePosixPath(name).name != name:
            raise MalformedHeader(f"the index names {name[:80]!r}, which is no file beside it")
    return tuple(names)


def _tensor(name: str, entry: Any, data_bytes: int) -> SafeTensor:
    what = f"tensor {name[:80]!r}"
    if not isinstance(entry, dict):
        raise MalformedHeader(f"{what} is not described by an object")
    described = cast("Mapping[str, Any]", entry)
    dtype = described.get("dtype")
    shape = _naturals(described.get("shape"))
    offsets = _naturals(described.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or offsets is None or len(offsets) != 2:
        raise MalformedHeader(f"{what} lacks its dtype, shape or data_offsets")
    if len(shape) > DIMENSIONS_MAX:
        raise MalformedHeader(f"{what} claims {len(shape)} dimensions")
    begin, end = offsets
    if begin > end:
        raise MalformedHeader(f"{what} ends before it begins")
    if end > data_bytes:
        raise MalformedHeader(
            f"{what} ends {end - data_bytes} bytes after the file: it is damaged, or was not "
            "fetched to its end"
        )
    parameters = 1
    for each in shape:
        parameters *= each
    return SafeTensor(name=name, dtype=dtype[:16], parameters=parameters, size_bytes=end - begin)


def _naturals(value: Any) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    numbers = cast("list[Any]", value)
    right = all(isinstance(each, int) and 0 <= each < 2**63 for each in numbers)
    return tuple(numbers) if right else None
