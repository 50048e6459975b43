"""What a build may reach: package sources, never the machine it runs on."""

from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from tramontane.base.errors import Unsupported
from tramontane.builders.environment import build_environment, enclosed_environment
from tramontane.builders.proxy import Refused, make_head, read_request
from tramontane.builders.reach import (
    Reach,
    choose,
    judge,
    judge_forwarded,
    make_reach,
    upstream_for,
)
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds

API_PORT = 8081
BOUNDS = EgressBounds(
    own=("192.168.7.7/32",),
    api_port=API_PORT,
    allowed=frozenset(
        {
            EgressRule(host="git.klinik.example", port=443),
            EgressRule(host="127.0.0.1", port=5432),
        }
    ),
)


def reach(environment: Mapping[str, str] | None = None, *texts: str) -> Reach:
    return make_reach(build_environment(environment or {}), texts, BOUNDS)


def why(found: Reach, destination: str, address: str) -> str:
    host, _, port = destination.rpartition(":")
    return judge(found, host, int(port), ip_address(address))


@pytest.mark.parametrize(
    ("destination", "address", "word"),
    [
        ("localhost:5432", "127.0.0.1", "this machine's own"),
        ("127.0.0.1:5432", "127.0.0.1", "this machine's own"),
        ("rebound.example:443", "::ffff:127.0.0.1", "this machine's own"),
        ("host.example:22", "192.168.7.7", "this machine's own"),
        ("pypi.org:443", "127.0.0.1", "this machine's own"),
        ("host.example:8081", "192.168.7.7", "the platform's own API"),
        ("metadata.example:80", "169.254.169.254", "metadata"),
        ("printer.example:80", "10.1.2.3", "a private network"),
        ("10.1.2.3:80", "10.1.2.3", "a private network"),
    ],
)
def test_the_machine_and_its_network_are_out_of_reach(
    destination: str, address: str, word: str
) -> None:
    assert word in why(reach(), destination, address)


@pytest.mark.parametrize(
    ("destination", "address"),
    [
        ("anything.example:443", "9.9.9.9"),
        ("pypi.org:443", "10.0.0.80"),
        ("mirror.example:443", "203.0.113.80"),
        ("git.klinik.example:443", "10.1.2.3"),
    ],
)
def test_the_world_is_within_reach(destination: str, address: str) -> None:
    assert why(reach(), destination, address) == ""


def test_package_sources_of_the_operator_may_be_anywhere_but_at_the_api() -> None:
    found = reach(
        {
            "PIP_INDEX_URL": "https://me:secret@nexus.klinik.example/simple",
            "GOPROXY": "http://127.0.0.1:3000,direct",
            "DATABASE_URL": "http://127.0.0.1:5432/",
            "CARGO_REGISTRIES_OWN_INDEX": f"sparse+http://127.0.0.1:{API_PORT}/index/",
        },
        "registry=http://10.1.2.3:4873/\n",
    )
    assert why(found, "nexus.klinik.example:443", "10.5.5.5") == ""
    assert why(found, "127.0.0.1:3000", "127.0.0.1") == ""
    assert why(found, "10.1.2.3:4873", "10.1.2.3") == ""
    assert "own API" in why(found, f"127.0.0.1:{API_PORT}", "127.0.0.1")
    assert "this machine's own" in why(found, "127.0.0.1:5432", "127.0.0.1")
    assert "private" in why(found, "nexus.klinik.example:80", "10.5.5.5")


def test_only_judged_addresses_are_dialled() -> None:
    addresses = [ip_address("127.0.0.1"), ip_address("9.9.9.9"), ip_address("10.1.2.3")]
    allowed, refusal = choose(reach(), "mixed.example", 443, addresses)
    assert (allowed, refusal) == ([addresses[1]], "")
    allowed, refusal = choose(reach(), "rebound.example", 443, addresses[:1])
    assert allowed == []
    assert "this machine's own" in refusal
    assert choose(reach(), "nowhere.example", 443, []) == ([], "it has no address")


def test_the_operators_proxy_is_not_asked_for_the_machine() -> None:
    """It resolves for itself, and often runs on this very machine."""
    found = reach({"https_proxy": "http://127.0.0.1:3128"})
    public, own = ip_address("9.9.9.9"), ip_address("127.0.0.1")
    assert judge_forwarded(found, "known.example", 443, [public]) == ""
    assert judge_forwarded(found, "known.to.the.proxy.only", 443, []) == ""
    assert "own" in judge_forwarded(found, "mixed.example", 443, [public, own])
    for name in ("localhost", "tram.localhost"):
        assert "own" in judge_forwarded(found, name, 443, [])


def test_the_operators_proxy_is_used_as_the_tools_would() -> None:
    found = reach(
        {
            "HTTPS_PROXY": "http://me:p%40ss@proxy.example:3128",
            "http_proxy": "other.example",
            "NO_PROXY": "klinik.example, .internal,10.1.2.3:80",
        }
    )
    tunnels = upstream_for(found, "pypi.org", 443, tunnel=True)
    assert tunnels is not None
    assert (tunnels.host, tunnels.port, tunnels.encrypted) == ("proxy.example", 3128, False)
    assert tunnels.authorization == "Basic bWU6cEBzcw=="
    plain = upstream_for(found, "pypi.org", 80, tunnel=False)
    assert plain is not None
    assert (plain.host, plain.port, plain.authorization) == ("other.example", 80, "")
    for host in ("klinik.example", "git.klinik.example", "a.internal"):
        assert upstream_for(found, host, 443, tunnel=True) is None
    assert upstream_for(found, "otherklinik.example", 443, tunnel=True) is not None
    assert upstream_for(found, "10.1.2.3", 80, tunnel=False) is None
    assert upstream_for(reach({"NO_PROXY": "*"}), "pypi.org", 443, tunnel=True) is None
    assert upstream_for(reach({"PIP_PROXY": "http://p:1"}), "x.example", 443, tunnel=True)


@pytest.mark.parametrize("proxy", ["socks5://me:secret@p:1080", "http://[::1", "http://p:99999"])
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(proxy: str) -> None:
    with pytest.raises(Unsupported, match="http://HOST:PORT") as refusal:
        reach({"HTTPS_PROXY": proxy})
    assert "secret" not in refusal.value.message


def test_a_step_knows_one_way_out_and_its_own_loopback() -> None:
    given = {
        "HOME": "/tmp/home",
        "HTTPS_PROXY": "http://me:secret@proxy.example",
        "npm_config_https_proxy": "http://me:secret@proxy.example",
        "no_proxy": "klinik.example",
        "MAVEN_OPTS": "-Xmx1g",
    }
    seen = enclosed_environment(given, "http://127.0.0.1:3128", {"127.0.0.1"})
    assert "secret" not in str(seen)
    for name in ("https_proxy", "HTTP_PROXY", "PIP_PROXY", "npm_config_proxy", "CARGO_HTTP_PROXY"):
        assert seen[name] == "http://127.0.0.1:3128"
    # The operator's mirror is at 127.0.0.1: that is not the step's own.
    assert seen["NO_PROXY"] == seen["no_proxy"] == "localhost,::1"
    assert seen["MAVEN_OPTS"] == "-Xmx1g -Duser.home=/tmp/home"


# --- what is asked of the proxy ----------------------------------------------------------------


def test_a_request_is_sent_on_with_nothing_left_over() -> None:
    head = (
        b"POST http://Host.example:8080/a?b=c HTTP/1.1\r\nHost: host.example:8080\r\n"
        b"Proxy-Authorization: Basic x\r\nProxy-Connection: keep-alive\r\nContent-Length: 5\r\n\r\n"
    )
    request = read_request(head)
    assert (request.host, request.port, request.body_bytes) == ("host.example", 8080, 5)
    assert make_head(request, forwarded=False, authorization="") == (
        b"POST /a?b=c HTTP/1.1\r\nHost: host.example:8080\r\nContent-Length: 5\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert make_head(request, forwarded=True, authorization="Basic y") == (
        b"POST http://host.example:8080/a?b=c HTTP/1.1\r\nHost: host.example:8080\r\n"
        b"Content-Length: 5\r\nConnection: close\r\nProxy-Authorization: Basic y\r\n\r\n"
    )


def test_a_tunnel_is_asked_for_anew() -> None:
    request = read_request(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nX-Evil: 1\r\n\r\n")
    assert (request.host, request.port, request.path) == ("2001:db8::1", 443, "")
    assert make_head(request, forwarded=True, authorization="") == (
        b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT host.example HTTP/1.1\r\n\r\n",
        b"CONNECT :443 HTTP/1.1\r\n\r\n",
        b"GET https://host.example/ HTTP/1.1\r\n\r\n",
        b"GET http://host.example:0x50/ HTTP/1.1\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\n\r\n",
        b"GET  http://host.example/ HTTP/1.1\r\n\r\n",
        b"POST http://h.example/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://h.example/ HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST http://h.example/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST http://h.example/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET http://h.example/ HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET http://h.example/ HTTP/1.1\r\nA: b\nHost: c\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_not_exactly_one_request_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        read_request(head)
