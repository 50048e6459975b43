"""What is this machine's own, and what its operator may open of it."""

import json
import stat
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds
from tramontane.processes.arguments import parse_control_arguments
from tramontane.processes.network import (
    check_allowed,
    keep_allowed,
    parse_allowed,
    read_allowed,
    take_local_routes,
)

DATABASE = EgressRule(host="127.0.0.1", port=5432)
LOCAL, UNICAST = 2, 1
DONE = struct.pack("=IHHII", 20, 3, 2, 1, 0) + bytes(4)


def route(kind: int, network: str = "") -> bytes:
    """Return one route as the kernel writes it, its destination after another attribute."""
    text, _, length = network.partition("/")
    packed = ip_address(text).packed if text else b""
    attributes = struct.pack("=HHI", 8, 15, 255)
    attributes += struct.pack("=HH", 4 + len(packed), 1) + packed if packed else b""
    message = struct.pack("=8BI", 2, int(length or 0), 0, 0, 255, 2, 254, kind, 0)
    return struct.pack("=IHHII", 28 + len(attributes), 24, 2, 1, 0) + message + attributes


def test_own_networks_are_those_whose_packets_stay_here() -> None:
    found: set[str] = set()
    first = route(LOCAL, "127.0.0.0/8") + route(UNICAST, "10.0.0.0/8") + route(LOCAL)
    assert not take_local_routes(first, found)
    assert take_local_routes(route(LOCAL, "fd00::2/128") + DONE, found)
    assert found == {"127.0.0.0/8", "fd00::2/128"}


def test_a_refusal_of_the_kernel_is_no_answer() -> None:
    refusal = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -1)
    with pytest.raises(OSError, match="not permitted"):
        take_local_routes(refusal, set())


def test_what_was_allowed_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "egress.json"
    assert read_allowed(path) == frozenset()
    keep_allowed(path, {DATABASE, EgressRule(host="*.klinik.example", port=443)})
    assert json.loads(path.read_text()) == ["*.klinik.example:443", "127.0.0.1:5432"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_allowed(path) == {DATABASE, EgressRule(host="*.klinik.example", port=443)}


def test_saying_nothing_keeps_and_none_takes_back(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path)]
    given = ["--allow-egress-to", "127.0.0.1:5432", "--allow-egress-to", "DB.example:1521"]
    assert parse_control_arguments(home).egress_allowed is None
    assert parse_control_arguments([*home, *given]).egress_allowed == {
        DATABASE,
        EgressRule(host="db.example", port=1521),
    }
    none = parse_control_arguments([*home, "--allow-egress-to", "none"])
    assert none.egress_allowed == frozenset()


@pytest.mark.parametrize("text", ["127.0.0.1", "db:0", "db:70000", "http://db:80", "", ":5432"])
def test_what_is_no_destination_is_refused_in_words(text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected HOST:PORT") as refusal:
        parse_allowed([text])
    assert refusal.value.path == "--allow-egress-to"


def test_nobody_allows_the_api() -> None:
    bounds = EgressBounds(own=("192.0.2.7/32",), api_port=8081)
    check_allowed(EgressBounds(api_port=8081, allowed=frozenset({DATABASE})))
    for host in ("127.0.0.1", "0.0.0.0", "192.0.2.7"):
        allowed = frozenset({EgressRule(host=host, port=8081)})
        with pytest.raises(InvalidRequest, match="the platform's own API") as refusal:
            check_allowed(EgressBounds(own=bounds.own, api_port=8081, allowed=allowed))
        assert f"--allow-egress-to {host}:8081" in refusal.value.message
