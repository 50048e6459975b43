"""The way out: only what the rules name, and never back into this machine but by its operator."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.gateway.bed import Bed, make_bed
from tests.integration.gateway.dns import answer_with
from tramontane.domain.addresses import AddressKind, kind_of, read_address
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds, EgressRoute

pytestmark = pytest.mark.timeout(60)

RULES = (
    EgressRule(host="allowed.test", port=443),
    EgressRule(host="*.wild.test", port=443),
    EgressRule(host="rebound.test", port=443),
)


@pytest.fixture
async def target() -> AsyncIterator[int]:
    """Something on this machine that nobody may reach without its operator."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        greeted.append(line)
        await writer.drain()
        writer.close()

    greeted: list[bytes] = []
    server = await asyncio.start_server(greet, "0.0.0.0", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def connect(bed: Bed, authority: str, then: bytes = b"") -> bytes:
    """Ask the proxy for a tunnel, say something in it, and return all that comes back."""
    return await say(
        bed, f"CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n".encode(), then
    )


async def say(bed: Bed, request: bytes, then: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_unix_connection(bed.egress["s"].socket)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " in answer.splitlines()[0] and then:
            writer.write(then)
            answer += await reader.read()
        else:
            length = int(answer.lower().partition(b"content-length: ")[2].split()[0])
            answer += await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return answer


def open_way(bed: Bed, *rules: EgressRule) -> None:
    route = EgressRoute(
        service_id="s",
        project="p",
        service="web",
        socket=str(bed.directory / "out"),
        rules=rules,
    )
    bed.egress["s"] = route
    bed.gateway.publish_egress(route)


async def test_what_no_rule_names_is_denied_with_how_to_allow_it(bed: Bed) -> None:
    open_way(bed, *RULES)
    await bed.applied()
    for authority in ("evil.test:443", "allowed.test:80", "wild.test:443", "10.0.0.1:443"):
        answer = await connect(bed, authority)
        assert b" 403 " in answer.splitlines()[0]
        assert authority.encode() in answer
        assert b"egress:" in answer
        assert b"p/web" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "egress_denied"
    answer = await say(bed, b"GET http://evil.test/ HTTP/1.1\r\nhost: evil.test\r\n\r\n")
    assert b" 403 " in answer.splitlines()[0]
    lines = await bed.log_lines(5, bed.options.egress_log)
    assert (lines[0]["project"], lines[0]["service"]) == ("p", "web")
    assert (lines[0]["host"], lines[0]["code"], lines[0]["verdict"]) == (
        "evil.test:443",
        403,
        "denied",
    )


async def test_the_socket_is_ours_alone(bed: Bed) -> None:
    open_way(bed, *RULES)
    await bed.applied()
    mode = os.stat(bed.egress["s"].socket).st_mode  # noqa: PTH116 - a quick look
    assert stat.S_IMODE(mode) == 0o600


def allow(bed: Bed, *rules: EgressRule, **more: Any) -> None:
    bed.gateway.publish_bounds(EgressBounds(allowed=frozenset(rules), **more))


def outer_address() -> str:
    """Return an address of this machine that others might call by a name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.18.0.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has a loopback only")
        return probe.getsockname()[0]


HELLO = b"GET / HTTP/1.1\r\n\r\n"


async def test_this_machine_is_not_reached_by_a_rule_alone(bed: Bed, target: int) -> None:
    own = outer_address()
    bed.gateway.publish_bounds(EgressBounds(own=(f"{own}/32",)))
    hosts = ("127.0.0.1", "127.3.2.1", "0.0.0.0", own)
    open_way(bed, *(EgressRule(host=host, port=target) for host in hosts))
    await bed.applied()
    for host in hosts:
        answer = await connect(bed, f"{host}:{target}", HELLO)
        assert b" 403 " in answer.splitlines()[0], answer
        assert b"this machine's own address" in answer
        assert f"tram up --allow-egress-to {host}:{target}".encode() in answer
        request = f"GET http://{host}:{target}/ HTTP/1.1\r\nhost: {host}:{target}\r\n\r\n"
        assert b" 403 " in (await say(bed, request.encode())).splitlines()[0]
    lines = await bed.log_lines(2 * len(hosts), bed.options.egress_log)
    assert {line["verdict"] for line in lines} == {"denied"}
    assert "this machine's own address" in lines[0]["why"]


async def test_other_ways_to_write_an_address_lead_nowhere_either(bed: Bed, target: int) -> None:
    """A resolver takes them for 127.0.0.1, and a pattern can be completed to it."""
    number = int.from_bytes(bytes([127, 0, 0, 1]))
    hosts = ("127.1", str(number), f"0x{number:x}", "localhost")
    wild = EgressRule(host="*.0.0.1", port=target)
    open_way(bed, wild, *(EgressRule(host=host, port=target) for host in hosts))
    await bed.applied()
    for host in (*hosts, "127.0.0.1"):
        answer = await connect(bed, f"{host}:{target}", HELLO)
        assert b" 502 " in answer.splitlines()[0], (host, answer)
        assert b"hello" not in answer


async def test_the_operator_opens_one_port_of_one_address(bed: Bed, target: int) -> None:
    rule, api = EgressRule(host="127.0.0.1", port=target), EgressRule(host="127.0.0.1", port=1)
    open_way(bed, rule, api)
    allow(bed, rule, api, api_port=1)
    await bed.applied()
    assert (await connect(bed, f"127.0.0.1:{target}", HELLO)).endswith(b"hello")
    answer = await connect(bed, "127.0.0.1:1", HELLO)
    assert b" 403 " in answer.splitlines()[0]
    assert b"the platform's own API" in answer
    allow(bed)
    await bed.applied()
    answer = await connect(bed, f"127.0.0.1:{target}", HELLO)
    assert b" 403 " in answer.splitlines()[0]


async def test_an_address_that_a_rule_names_is_reached(bed: Bed, target: int) -> None:
    open_way(bed, EgressRule(host="127.0.0.1", port=target))
    allow(bed, EgressRule(host="127.0.0.1", port=target))
    await bed.applied()
    answer = await connect(bed, f"127.0.0.1:{target}", b"GET / HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"hello")
    url = f"http://127.0.0.1:{target}/x"
    answer = await say(bed, f"GET {url} HTTP/1.1\r\nhost: 127.0.0.1:{target}\r\n\r\n".encode())
    assert answer.endswith(b"hello")


async def test_tunnels_may_be_asked_for_in_http_1_0(bed: Bed, target: int) -> None:
    """As Python 3.11's own library and other old hands do."""
    open_way(bed, EgressRule(host="127.0.0.1", port=target))
    allow(bed, EgressRule(host="127.0.0.1", port=target))
    await bed.applied()
    request = f"CONNECT 127.0.0.1:{target} HTTP/1.0\r\n\r\n".encode()
    assert (await say(bed, request, b"GET / HTTP/1.1\r\n\r\n")).endswith(b"hello")
    denied = await say(bed, b"CONNECT evil.test:443 HTTP/1.0\r\n\r\n")
    assert b" 403 " in denied.splitlines()[0]
    assert b"evil.test:443" in denied


async def test_new_rules_cut_no_tunnel(bed: Bed) -> None:
    ended = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()
        await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    open_way(bed, EgressRule(host="127.0.0.1", port=port))
    allow(bed, EgressRule(host="127.0.0.1", port=port))
    await bed.applied()
    reader, writer = await asyncio.open_unix_connection(bed.egress["s"].socket)
    writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    open_way(bed, EgressRule(host="127.0.0.1", port=port), *RULES)
    await bed.applied()
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(ended.wait(), 10)
    server.close()


async def test_names_that_lead_into_this_machine_are_refused(target: int) -> None:
    addresses = {
        "allowed.test": ["127.0.0.1"],
        "rebound.test": ["10.9.8.7", "127.0.0.1"],
        "mapped.test": ["::1"],
        "net.test": ["10.1.2.3"],
        "meta.test": ["169.254.169.254"],
    }
    async with answer_with(addresses) as resolver, make_bed(egress_dns_servers=(resolver,)) as bed:
        await bed.start()
        open_way(bed, *(EgressRule(host=host, port=target) for host in addresses))
        await bed.applied()
        for host in ("allowed.test", "mapped.test", "net.test", "meta.test"):
            answer = await connect(bed, f"{host}:{target}", b"GET / HTTP/1.1\r\n\r\n")
            assert b" 502 " in answer.splitlines()[0], answer
            assert b"egress_private" in answer
            assert b"hello" not in answer
        # Of several addresses, all private ones are left out, so none of these is dialled.
        answer = await connect(bed, f"rebound.test:{target}", b"GET / HTTP/1.1\r\n\r\n")
        assert b" 502 " in answer.splitlines()[0], answer


async def test_a_private_network_is_reached_by_its_own_names_and_by_allowed_ones() -> None:
    """The machine's outer address plays a host of that network, until it is known to be its own."""
    own = outer_address()
    if kind_of(read_address(own) or pytest.fail(own)) is AddressKind.PUBLIC:
        pytest.skip("this machine has a public address")
    names = {
        name: [own] for name in ("pacs.klinik.internal", "pacs.klinik.test", "other.klinik.test")
    }
    # Had the second address been dialled after the first refused, something would have answered.
    both = {"both.internal": [own, "127.0.0.1"]}
    async with (
        answer_with({**names, **both}) as resolver,
        make_bed(egress_dns_servers=(resolver,)) as bed,
        await asyncio.start_server(_greet_and_close, own, 0) as server,
        await asyncio.start_server(_greet_and_close, "127.0.0.1", 0) as inner,
    ):
        port, inner_port = (each.sockets[0].getsockname()[1] for each in (server, inner))
        await bed.start()
        rules = [EgressRule(host=name, port=port) for name in names]
        open_way(bed, *rules, EgressRule(host="both.internal", port=inner_port))
        allow(bed, EgressRule(host="pacs.klinik.test", port=port))
        await bed.applied()
        for name in ("pacs.klinik.internal", "pacs.klinik.test"):
            assert (await connect(bed, f"{name}:{port}", HELLO)).endswith(b"hello")
        answer = await connect(bed, f"other.klinik.test:{port}", HELLO)
        assert b" 502 " in answer.splitlines()[0]
        assert f"tram up --allow-egress-to other.klinik.test:{port}".encode() in answer
        answer = await connect(bed, f"both.internal:{inner_port}", HELLO)
        assert b"hello" not in answer
        allow(bed, EgressRule(host="pacs.klinik.test", port=port), own=(f"{own}/32",))
        await bed.applied()
        for name in names:
            answer = await connect(bed, f"{name}:{port}", HELLO)
            assert b" 502 " in answer.splitlines()[0], answer
            assert b"egress_private" in answer


async def _greet_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"hello")
    await writer.drain()
    writer.close()


async def test_closing_the_way(bed: Bed) -> None:
    open_way(bed, *RULES)
    await bed.applied()
    bed.gateway.remove_egress("s")
    await bed.applied()
    with pytest.raises((OSError, asyncio.IncompleteReadError, TimeoutError)):
        await connect(bed, "evil.test:443")
