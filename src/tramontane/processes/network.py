"""What of the network is this machine's own, and what its operator has opened of it.

The control plane reads it at its start, tells the gateway, and looks again every few seconds:
addresses come and go with cables, leases and virtual machines.
"""

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from pydantic import ValidationError

from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.base.files import write_private
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds
from tramontane.gateway.reach import Denial, judge
from tramontane.wire.manifest import egress_body
from tramontane.wire.schemas import EgressBody

log = logging.getLogger(__name__)

FLAG = "--allow-egress-to"
NOTHING = "none"
"""In place of a destination: what was allowed at earlier starts is so no longer."""
PERIOD_S = 5.0

_GET_ROUTES, _ROUTE, _ERROR, _DONE = 26, 24, 2, 3
_REQUEST_DUMP = 0x301
_LOCAL = 2
_DESTINATION = 1
_HEADER, _MESSAGE, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=8BI"), struct.Struct("=HH")
_RECEIVE_BYTES = 256 * 1024


def read_own_networks() -> tuple[str, ...]:
    """Return the networks whose packets the kernel keeps: its routes of type local (rtnetlink(7)).

    More than the addresses of the interfaces: a whole network can be delivered to a machine. A
    local route for everything, as transparent proxies set up, names no network and is left out.
    """
    found: set[str] = set()
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
            size = _HEADER.size + _MESSAGE.size
            header = _HEADER.pack(size, _GET_ROUTES, _REQUEST_DUMP, 1, 0)
            asking.sendall(header + _MESSAGE.pack(*[0] * 9))
            while not take_local_routes(asking.recv(_RECEIVE_BYTES), found):
                pass
    except OSError as error:
        raise Unsupported(
            f"cannot read which addresses are this machine's own: {error.strerror}; "
            "without that, instances cannot be kept from them"
        ) from error
    return tuple(sorted(found))


def read_allowed(path: Path) -> frozenset[EgressRule]:
    """Return what the operator allowed at an earlier start."""
    try:
        texts: list[str] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    return parse_allowed(texts)


def keep_allowed(path: Path, allowed: Iterable[EgressRule]) -> None:
    """Remember it for later starts."""
    write_private(path, json.dumps(describe_allowed(allowed), indent=2) + "\n")


def describe_allowed(allowed: Iterable[EgressRule]) -> list[str]:
    """Return the destinations as the operator writes them."""
    return sorted(f"{rule.host}:{rule.port}" for rule in allowed)


def parse_allowed(texts: Sequence[str]) -> frozenset[EgressRule]:
    """Return the destinations in ``HOST:PORT``; raises ``InvalidRequest`` naming the wrong one."""
    if list(texts) == [NOTHING]:
        return frozenset()
    return frozenset(_parse(text) for text in texts)


def check_allowed(bounds: EgressBounds) -> None:
    """Raise ``InvalidRequest`` for a destination that no operator can allow."""
    for rule in sorted(bounds.allowed):
        found = judge(rule, bounds)
        if isinstance(found, Denial):
            text = f"{FLAG} {rule.host}:{rule.port}"
            raise InvalidRequest(f"{text}: {found.why}; leave it out", path=FLAG)


async def keep_bounds(bounds: EgressBounds, publish: Callable[[EgressBounds], None]) -> None:
    """Follow the machine's own networks as they change, until cancelled."""
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            found = replace(bounds, own=read_own_networks())
        except Unsupported as error:
            # What was known last still holds, and the next look is soon.
            log.warning("%s", error.message)
            continue
        if found != bounds:
            bounds = found
            publish(bounds)


def take_local_routes(data: bytes, found: set[str]) -> bool:
    """Add the local routes of one answer; return whether it was the last."""
    while data:
        size, kind, *_ = _HEADER.unpack_from(data)
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", data, _HEADER.size)
            raise OSError(-code, os.strerror(-code))
        if kind == _DONE:
            return True
        if kind == _ROUTE:
            _, length, *_, route_type, _ = _MESSAGE.unpack_from(data, _HEADER.size)
            if route_type == _LOCAL:
                attributes = data[_HEADER.size + _MESSAGE.size : size]
                found.update(f"{each}/{length}" for each in _read_destinations(attributes))
        data = data[_aligned(size) :]
    return False


def _parse(text: str) -> EgressRule:
    try:
        host, _, port = text.rpartition(":")
        body = EgressBody.model_validate(egress_body(text) if host and port.isdigit() else {})
    except ValidationError as error:
        raise InvalidRequest(
            f"{FLAG} {text}: expected HOST:PORT, such as 127.0.0.1:5432 or db.example.org:5432; "
            f"{FLAG} {NOTHING} allows nothing any more",
            path=FLAG,
        ) from error
    return EgressRule(host=body.host, port=body.port)


def _read_destinations(attributes: bytes) -> Iterator[str]:
    while len(attributes) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _DESTINATION:
            yield str(ip_address(attributes[_ATTRIBUTE.size : size]))
        attributes = attributes[_aligned(size) :]


def _aligned(size: int) -> int:
    return (size + 3) & ~3
