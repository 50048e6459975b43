"""Encodes and decodes Envoy's messages without generated code.

The schema is the Envoy binary's own, extracted by ``tools/extract_envoy_descriptors.py``, so it
cannot differ from what Envoy reads, and no package that also owns the name ``envoy`` is needed.
The rest of the gateway writes resources as plain JSON-shaped dicts, spelled as in Envoy's
documentation, and calls ``Schema.encode``; a misspelled field is a ``ParseError`` in a unit test.
"""

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

Json = dict[str, Any]
"""One message in Envoy's JSON form."""


class Schema:
    """A private descriptor pool: several may live in one process, none touches the default pool."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        raw = files("tramontane.gateway").joinpath("envoy_api.binpb").read_bytes()
        for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
            self._pool.AddSerializedFile(file.SerializeToString())

    def message_class(self, name: str) -> type[Any]:
        """Return the class of a message by full name, such as ``envoy.config.core.v3.Node``."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def encode(self, name: str, body: Json) -> bytes:
        """Return the deterministic wire form of ``body`` as message ``name``."""
        message: Message = self.message_class(name)()
        json_format.ParseDict(body, message, descriptor_pool=self._pool)
        return message.SerializeToString(deterministic=True)

    def decode(self, name: str, raw: bytes) -> Json:
        """Return the JSON form of a wire message: for tests and for people."""
        message = self.message_class(name).FromString(raw)
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, descriptor_pool=self._pool
        )


def join_field(number: int, parts: Iterable[bytes]) -> bytes:
    """Return a field of a message whose own encoded parts are these: joined, they are whole."""
    body = b"".join(parts)
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*encoded, value))


def typed(type_name: str, **fields: Any) -> Json:
    """Return an ``Any`` in JSON form: how Envoy's extensions carry their configuration."""
    return {"@type": f"type.googleapis.com/{type_name}", **fields}


def named(name: str, type_name: str, **fields: Any) -> Json:
    """Return a ``{name, typed_config}`` pair, the shape of most of Envoy's extension points."""
    return {"name": name, "typed_config": typed(type_name, **fields)}
