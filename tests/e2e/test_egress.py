"""The way out of an instance: closed, but for what its manifest names, and every attempt is told.

Nothing here needs a network outside of this machine: what may be reached is an address of a
listener in this process, named as such in ``egress:`` and opened by the operator. That an allowed
*name* leads out is shown in ``tests/integration/gateway/test_egress.py``, with a resolver of its
own; that a public address answers over a real network cannot be shown on a machine without one.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import running_platform, write_app
from tests.e2e.platform import Platform, free_port, wait_for

pytestmark = pytest.mark.e2e

PROBE = r'''
import json, os, socket, sys, urllib.error, urllib.request

def attempt(kind, host, port):
    """Return what came of it, "" if it was impossible."""
    try:
        if kind == "proxy":
            for name in ("no_proxy", "NO_PROXY"):
                os.environ.pop(name, None)
            with urllib.request.urlopen(host, timeout=20) as answer:
                return f"{answer.status} {answer.read(300).decode(errors='replace')}"
        if kind == "tunnel":
            with socket.create_connection(("127.0.0.1", 3128), 20) as connection:
                connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n".encode())
                answer = connection.recv(1000)
                if b" 200 " in answer:
                    connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answer += connection.recv(1000)
                return answer.decode(errors="replace")
        if kind == "name":
            return str(socket.getaddrinfo(host, port))
        if kind == "unix":
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(host.replace("@", chr(0)))
                return "connected"
        if kind == "raw":
            with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
                return "made"
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        way = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        with socket.socket(family, way) as connection:
            connection.settimeout(3)
            connection.connect((host, port))
            connection.send(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(100).decode(errors="replace") or "nothing was said"
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(500).decode(errors='replace')}"
    except urllib.error.URLError as error:
        return f"failed: {error.reason}"
    except (OSError, ValueError):
        return ""

given = json.loads(sys.argv[1])
found = {" ".join(map(str, each)): attempt(*each) for each in given}
found["interfaces"] = [name for _, name in socket.if_nameindex()]
print(json.dumps(found))
'''


class Listener:
    """A service of the host that nobody inside should be able to reach; TCP and UDP."""

    def __init__(self, port: int = 0) -> None:
        self.heard: list[bytes] = []
        self._tcp = socket.create_server(("127.0.0.1", port))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        self._abstract = socket.socket(socket.AF_UNIX)
        self.abstract = f"tram-test-{self.port}"
        self._abstract.bind("\0" + self.abstract)
        self._abstract.listen()
        self._threads = [
            threading.Thread(target=each, daemon=True) for each in (self._serve, self._receive)
        ]
        for thread in self._threads:
            thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._tcp.accept()
                with connection, suppress(OSError):
                    connection.settimeout(5)
                    self.heard.append(connection.recv(4096))
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    def _receive(self) -> None:
        with suppress(OSError):
            while True:
                data, sender = self._udp.recvfrom(4096)
                self.heard.append(data)
                if sender is None:  # closed
                    return
                self._udp.sendto(b"hello", sender)

    def close(self) -> None:
        for each in (self._tcp, self._udp, self._abstract):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)


OPENED_PORT = free_port()
"""The one port of this machine that the operator lets instances reach."""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running_platform("--allow-egress-to", f"127.0.0.1:{OPENED_PORT}") as platform:
        yield platform


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def opened() -> Iterator[Listener]:
    opened = Listener(OPENED_PORT)
    try:
        yield opened
    finally:
        opened.close()


def deploy(platform: Platform, directory: Path, name: str, egress: str = "") -> None:
    source = write_app(directory / name, "v1", f"scale: {{min: 1}}\n{egress}")
    (source / "probe.py").write_text(PROBE.replace("\\\\\\\\", "\\\\"))
    platform.tram("deploy", source, "--name", name)


def attempt(platform: Platform, name: str, *what: tuple[str, str, int]) -> dict[str, Any]:
    done = platform.tram("exec", name, "--", "python", "probe.py", json.dumps(what))
    return json.loads(done.stdout)


def egress_lines(platform: Platform, name: str, count: int) -> list[str]:
    """Return what ``tram logs`` tells once this many lines are there; Envoy writes in batches."""

    def read() -> list[str]:
        lines = platform.tram("logs", name, "--source", "egress").stdout.splitlines()
        return lines if len(lines) >= count else []

    return wait_for(read, f"{count} lines of egress")


def test_nothing_is_reached_without_egress(
    platform: Platform, listener: Listener, tmp_path: Path
) -> None:
    deploy(platform, tmp_path, "other")
    deploy(platform, tmp_path, "closed")
    other = platform.service("other")["instances"][0]
    own_addresses = {
        str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)
    }
    run = next(path.parent for path in Path("/tmp").glob(f"tram-*/{other['id']}"))
    impossible: list[tuple[str, str, int]] = [
        *(("tcp", address, listener.port) for address in ("127.0.0.1", "::1", *own_addresses)),
        *(("tcp", "127.0.0.1", port) for port in (platform.api_port, platform.gateway_port)),
        *(("tcp", "169.254.169.254", port) for port in (80, 443)),
        *(("tcp", address, 443) for address in ("192.0.2.1", "2001:db8::1", "fe80::1")),
        *(("udp", address, 53) for address in ("9.9.9.9", "127.0.0.53", "2620:fe::fe")),
        ("udp", "127.0.0.1", listener.port),
        ("name", "example.com", 443),
        ("unix", f"@{listener.abstract}", 0),
        ("unix", str(run / other["id"] / "in.sock"), 0),
        ("unix", str(run / "xds.sock"), 0),
        ("raw", "", 0),
    ]
    found = attempt(platform, "closed", *impossible)
    assert found.pop("interfaces") == ["lo"]
    assert {what: answer for what, answer in found.items() if answer} == {}
    assert listener.heard == []


def test_what_is_asked_of_the_proxy_is_denied_and_told(
    platform: Platform, listener: Listener, tmp_path: Path
) -> None:
    deploy(platform, tmp_path, "asking")
    hosts = [
        f"127.0.0.1:{listener.port}",
        f"localhost:{listener.port}",
        f"[::1]:{listener.port}",
        f"127.0.0.1:{platform.api_port}",
        f"asking.default.localhost:{platform.gateway_port}",
        "169.254.169.254",
        "example.com",
    ]
    found = attempt(
        platform,
        "asking",
        *(("proxy", f"http://{host}/", 0) for host in hosts),
        ("proxy", "https://example.com/", 0),
        ("tunnel", "127.0.0.1", listener.port),
    )
    for host in hosts:
        status, _, body = found[f"proxy http://{host}/ 0"].partition(" ")
        assert status == "403"
        assert json.loads(body)["error"] == {
            "code": "egress_denied",
            "message": f"{host} is not among what default/asking may reach; "
            "to allow it, add it under egress: in tramontane.yaml",
        }
    assert "403" in found["proxy https://example.com/ 0"]
    assert found[f"tunnel 127.0.0.1 {listener.port}"].startswith("HTTP/1.1 403 ")
    why = "not under egress: in tramontane.yaml"
    lines = egress_lines(platform, "asking", len(hosts) + 2)
    assert lines == [
        *(f"denied GET {host}: {why}" for host in hosts),
        f"denied CONNECT example.com:443: {why}",
        f"denied CONNECT 127.0.0.1:{listener.port}: {why}",
    ]
    assert listener.heard == []


def test_a_manifest_alone_opens_nothing_of_this_machine(
    platform: Platform, listener: Listener, tmp_path: Path
) -> None:
    own = socket.gethostbyname(socket.gethostname())
    denied = {
        f"127.0.0.1:{listener.port}": "this machine's own address",
        f"127.9.9.9:{listener.port}": "this machine's own address",
        f"0.0.0.0:{listener.port}": "this machine's own address",
        f"{own}:{listener.port}": "this machine's own address",
        f"127.0.0.1:{platform.api_port}": "the platform's own API",
        f"127.0.0.1:{platform.gateway_port}": "this machine's own address",
        "169.254.169.254:80": "metadata service",
    }
    rules = ", ".join(json.dumps(each) for each in (*denied, f"*.0.0.1:{OPENED_PORT}"))
    deploy(platform, tmp_path, "greedy", f"egress: [{rules}]\n")
    found = attempt(
        platform,
        "greedy",
        *(("proxy", f"http://{host}/", 0) for host in denied),
        ("tunnel", "127.0.0.1", listener.port),
        ("tunnel", "127.0.0.1", platform.api_port),
        ("tunnel", "127.0.0.1", OPENED_PORT),
    )
    for host, why in denied.items():
        answer = found[f"proxy http://{host}/ 0"]
        assert answer.startswith("403 "), (host, answer)
        assert why in answer
    assert found[f"tunnel 127.0.0.1 {listener.port}"].startswith("HTTP/1.1 403 ")
    assert found[f"tunnel 127.0.0.1 {platform.api_port}"].startswith("HTTP/1.1 403 ")
    assert found[f"tunnel 127.0.0.1 {OPENED_PORT}"].startswith("HTTP/1.1 502 ")
    lines = egress_lines(platform, "greedy", len(denied) + 3)
    assert all(line.startswith("denied ") for line in lines), lines
    assert lines[0].endswith(f"tram up --allow-egress-to 127.0.0.1:{listener.port}")
    assert "--allow-egress-to" not in next(line for line in lines if "API" in line)
    assert listener.heard == []


def test_the_operator_cannot_open_the_api_either(platform: Platform) -> None:
    other = Platform(home=platform.home.with_name("other"))
    refused = other.tram(
        *("up", "--detach", "--api", f"127.0.0.1:{other.api_port}"),
        *("--gateway", f"127.0.0.1:{other.gateway_port}"),
        *("--allow-egress-to", f"127.0.0.1:{other.api_port}"),
        check=2,
    )
    assert "the platform's own API" in refused.stderr
    assert not (other.home / "claim.json").exists()


def test_what_manifest_and_operator_name_is_reached_and_nothing_else(
    platform: Platform, opened: Listener, tmp_path: Path
) -> None:
    listener = opened
    rules = f'egress: ["127.0.0.1:{listener.port}", "localhost:{listener.port}"]\n'
    deploy(platform, tmp_path, "opened", rules)
    here = f"127.0.0.1:{listener.port}"
    found = attempt(
        platform,
        "opened",
        ("proxy", f"http://{here}/", 0),
        ("tunnel", "127.0.0.1", listener.port),
        ("proxy", f"http://127.0.0.1:{platform.api_port}/healthz", 0),
        ("proxy", f"http://localhost:{listener.port}/", 0),
        ("tcp", "127.0.0.1", listener.port),
    )
    assert found[f"proxy http://{here}/ 0"] == "200 hello"
    assert found[f"tunnel 127.0.0.1 {listener.port}"].endswith("hello")
    assert found[f"proxy http://127.0.0.1:{platform.api_port}/healthz 0"].startswith("403 ")
    assert found[f"tcp 127.0.0.1 {listener.port}"] == "", "only through the proxy"
    # A name never leads into this machine, whoever allowed it: it may be anybody's record.
    assert "name the address itself" in found[f"proxy http://localhost:{listener.port}/ 0"]
    assert egress_lines(platform, "opened", 4) == [
        f"allowed GET {here}",
        f"allowed CONNECT {here}",
        f"denied GET 127.0.0.1:{platform.api_port}: not under egress: in tramontane.yaml",
        f"denied GET localhost:{listener.port}: "
        "it leads to an address of this machine or of a private network",
    ]
    assert len(listener.heard) == 2
    assert b"x-" not in b"".join(listener.heard).lower(), "nothing of the platform's is added"

    deploy(platform, tmp_path / "again", "opened")

    def closed() -> bool:
        again = attempt(platform, "opened", ("proxy", f"http://{here}/", 0))
        return again[f"proxy http://{here}/ 0"].startswith("403 ")

    # While the old instance drains, both share one way out.
    wait_for(closed, "the way out to be closed again")
    heard = len(listener.heard)
    assert closed()
    assert len(listener.heard) == heard
