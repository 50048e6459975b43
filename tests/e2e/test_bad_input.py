"""Bad input through the real sockets and the real command line: refused in words, changes nothing.

Every test here is wrapped in the same three promises (``calm``): what the platform knows is the
same before and after, the control plane is the same process and complained of nothing in its log,
and a service and the API went on answering all the while.
"""

import gzip
import hashlib
import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import write_app
from tests.e2e.platform import Platform, wait_for
from tests.e2e.raw import head, say
from tramontane import Client
from tramontane.base.errors import InvalidRequest, TramontaneError
from tramontane.wire.schemas import DefinitionBody, DirectorySourceBody

pytestmark = pytest.mark.e2e

HOST = b"host: echo.default.localhost"
TEN_MB = 10_000_000
SLOW_EACH = 150


@dataclass
class Pulse:
    """Asks a service and the API over and over; remembers what did not answer well."""

    platform: Platform
    token: str
    asked: int = 0
    wrong: list[str] = field(default_factory=list[str])
    slowest_s: float = 0.0

    def beat(self, stop: threading.Event) -> None:
        headers = {"Authorization": f"Bearer {self.token}"}
        api = f"http://127.0.0.1:{self.platform.api_port}/api/v1/services"
        with httpx.Client(headers=headers, timeout=20, trust_env=False) as client:
            while not stop.wait(0.05):
                began = time.monotonic()
                try:
                    statuses = (client.get(api).status_code, self.platform.request("echo").status)
                except (OSError, httpx.HTTPError) as error:
                    self.wrong.append(repr(error))
                    continue
                if statuses != (200, 200):
                    self.wrong.append(f"{statuses}")
                self.asked += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)


@pytest.fixture(scope="module")
def token(platform: Platform) -> str:
    return (platform.home / "credentials").read_text().strip()


@pytest.fixture(scope="module")
def client(platform: Platform, token: str) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{platform.api_port}", token) as client:
        yield client


@pytest.fixture(scope="module")
def echo(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> str:
    source = write_app(tmp_path_factory.mktemp("source") / "app", "v1", "scale: {min: 1}\n")
    platform.tram("deploy", source, "--name", "echo")
    return "echo"


@pytest.fixture(scope="module")
def slow(platform: Platform) -> Iterator[dict[socket.socket, str]]:
    """Clients that began to say something; each has 30 s for its headers."""
    with ExitStack() as stack:
        clients: dict[socket.socket, str] = {}
        for part, port in (("gateway", platform.gateway_port), ("API", platform.api_port)):
            for _ in range(SLOW_EACH):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                connection.sendall(b"GET / HTTP/1.1\r\nhost: echo.default.localhost\r\nx: ")
                connection.setblocking(False)
                clients[connection] = part
        yield clients


@pytest.fixture(autouse=True)
def calm(platform: Platform, token: str, client: Client, echo: str, slow: object) -> Iterator[None]:
    assert slow is not None
    before = _known(client)
    pulse, stop = Pulse(platform, token), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(pulse.beat, stop)
        try:
            yield
            wait_for(lambda: pulse.asked > 2 or beating.done(), "a few heartbeats")
        finally:
            stop.set()
        beating.result()
    assert not pulse.wrong, "the rest stopped answering"
    assert pulse.slowest_s < 10
    assert _known(client) == before
    assert platform.complaints() == []


def _known(client: Client) -> list[Any]:
    services = [
        (each.id, each.project, each.name, each.generation, each.deployment, each.status)
        for each in client.list_services()
    ]
    projects = [(each.name, each.policy) for each in client.list_projects()]
    tokens = [each.id for each in client.list_tokens()]
    return [*services, *projects, *tokens, client.get_status().control_plane.pid]


# --- bytes that are no decent HTTP -----------------------------------------------------------

SMUGGLED = b"GET /log?smuggled HTTP/1.1\r\n" + HOST + b"\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked"
MALFORMED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
    "HTTP 0.9": b"GET /\r\n\r\n",
    "headers of 10 MB": head(b"GET / HTTP/1.1", HOST, b"x: " + b"a" * TEN_MB),
    "20,000 headers": head(b"GET / HTTP/1.1", HOST, *(b"x%d: y" % n for n in range(20_000))),
    "a path of 10 MB": head(b"GET /" + b"a" * TEN_MB + b" HTTP/1.1", HOST),
    "a method of 100 kB": head(b"A" * 100_000 + b" / HTTP/1.1", HOST),
    "bytes in the path": head(b"GET /caf\xe9\xff HTTP/1.1", HOST),
    "NUL in the path": head(b"GET /a\0b HTTP/1.1", HOST),
    "NUL in a header": head(b"GET / HTTP/1.1", HOST, b"x: a\0b"),
    "bytes in a header's name": head(b"GET / HTTP/1.1", HOST, b"x\xff: 1"),
    "space before the colon": head(b"GET / HTTP/1.1", HOST, b"x : 1"),
    "two lengths": head(b"POST / HTTP/1.1", HOST, b"content-length: 4", b"content-length: 9")
    + SMUGGLED,
    "a length with a sign": head(b"POST / HTTP/1.1", HOST, b"content-length: +4") + SMUGGLED,
    "a negative length": head(b"POST / HTTP/1.1", HOST, b"content-length: -4") + SMUGGLED,
    "a length of 29 digits": head(b"POST / HTTP/1.1", HOST, b"content-length: " + b"9" * 29),
    "an unknown coding": head(b"POST / HTTP/1.1", HOST, b"transfer-encoding: xchunked") + SMUGGLED,
    "two codings": head(b"POST / HTTP/1.1", HOST, CHUNKED, b"transfer-encoding: identity")
    + b"0\r\n\r\n"
    + SMUGGLED,
    "a negative chunk": head(b"POST / HTTP/1.1", HOST, CHUNKED) + b"-1\r\na\r\n0\r\n\r\n",
}
ONLY_GATEWAY = {
    "%00 in the path": head(b"GET /a%00b HTTP/1.1", HOST),
    "length and chunks": head(b"POST / HTTP/1.1", HOST, b"content-length: 5", CHUNKED)
    + b"0\r\n\r\n"
    + SMUGGLED,
    "chunks and length": head(b"POST / HTTP/1.1", HOST, CHUNKED, b"content-length: 5")
    + b"0\r\n\r\n"
    + SMUGGLED,
    "a chunk of 17 digits": head(b"POST / HTTP/1.1", HOST, CHUNKED) + b"F" * 17 + b"\r\nabc",
    "an unknown method": head(b"BREW / HTTP/1.1", HOST),
    "a host that is none": head(b"GET / HTTP/1.1", b"host: a..b/../c@d"),
    "a host that is no ASCII": head(b"GET / HTTP/1.1", b"host: \xc3\xa9.default.localhost"),
    "a host of 5 kB": head(b"GET / HTTP/1.1", b"host: " + b"a" * 5000),
    "another host in the target": head(b"GET http://other.x.localhost/ HTTP/1.1", HOST),
    "a tunnel to the API": head(b"CONNECT 127.0.0.1:80 HTTP/1.1", b"host: 127.0.0.1:80"),
    "a tunnel to a service": head(b"CONNECT echo.default.localhost:80 HTTP/1.1", HOST),
    "a request to the server": head(b"OPTIONS * HTTP/1.1", HOST),
}


@pytest.mark.parametrize("what", [*MALFORMED, *ONLY_GATEWAY])
def test_the_gateway_refuses(platform: Platform, what: str) -> None:
    reply = say(platform.gateway_port, (MALFORMED | ONLY_GATEWAY)[what])
    assert len(reply.statuses) == 1, reply
    assert 400 <= reply.status < 500, reply
    error = json.loads(reply.data.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"].replace("_", "").isalpha()
    assert len(error["message"]) > 10


@pytest.mark.parametrize("what", MALFORMED)
def test_the_api_refuses(platform: Platform, what: str) -> None:
    reply = say(platform.api_port, MALFORMED[what])
    assert len(reply.statuses) == 1, reply
    assert 400 <= reply.status < 500, reply
    assert reply.data.partition(b"\r\n\r\n")[2].strip()


ODD = {
    "an absolute target": head(b"GET http://echo.default.localhost/ HTTP/1.1", HOST),
    "a port that nobody has": head(b"GET / HTTP/1.1", HOST + b":99999"),
    "bytes in a header": head(b"GET / HTTP/1.1", HOST, b"x: \xff\xfe"),
    "bytes in escapes": head(b"GET /%ff%fe HTTP/1.1", HOST),
    "a climbing path": head(b"GET /../../../etc/passwd HTTP/1.1", HOST),
    "HTTP 1.0": head(b"GET / HTTP/1.0", HOST),
    "an upgrade": head(
        b"GET / HTTP/1.1", HOST, b"connection: upgrade", b"upgrade: h2c", b"http2-settings: AA"
    ),
    "TRACE": head(b"TRACE / HTTP/1.1", HOST),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_but_allowed_reaches_the_app_once(platform: Platform, what: str) -> None:
    reply = say(platform.gateway_port, ODD[what])
    assert reply.statuses == [200]
    assert b"v1 " in reply.data


def test_nothing_was_smuggled(platform: Platform) -> None:
    """Runs after the above: the app prints what reaches it under /log."""
    platform.request("echo", "/log?honest")

    def said() -> str:
        output = platform.tram("logs", "echo").stdout
        return output if "said honest" in output else ""

    assert "smuggled" not in wait_for(said, "the app's own line")


def test_large_bodies_pass_to_apps(platform: Platform) -> None:
    body = b"x" * TEN_MB
    assert platform.request("echo", method="POST", body=body).body.endswith(b" 10000000")
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in [body[:100_000]] * 100]
    reply = say(
        platform.gateway_port,
        [head(b"POST / HTTP/1.1", HOST, CHUNKED), *chunks, b"0\r\n\r\n"],
        timeout_s=30,
    )
    assert reply.status == 200
    assert b" 10000000" in reply.data


# --- clients that hang up or dawdle ----------------------------------------------------------


def test_half_closed_clients(platform: Platform, token: str) -> None:
    whole = head(b"GET /healthz HTTP/1.1", HOST)
    assert say(platform.api_port, whole, half_close=True).statuses == [200]
    # Envoy takes the end of a request's stream for the end of the client, and hangs up.
    assert say(platform.gateway_port, whole, half_close=True).closed
    authorization = b"authorization: Bearer " + token.encode()
    part = head(b"POST /api/v1/x HTTP/1.1", HOST, authorization, b"content-length: 9") + b"{"
    for port in (platform.gateway_port, platform.api_port):
        for request in (part, b"GET / HTTP/1.1\r\nhost: ec"):
            reply = say(port, request, half_close=True)
            assert reply.closed
            assert reply.status < 500


@pytest.mark.parametrize("path", ["tokens", f"sources/sha256:{'0' * 64}"])
@pytest.mark.parametrize("body", ["cut off", "a bad chunk"])
def test_uploads_that_break_off(platform: Platform, token: str, path: str, body: str) -> None:
    line = f"{'PUT' if 'sources' in path else 'POST'} /api/v1/{path} HTTP/1.1".encode()
    authorization = b"authorization: Bearer " + token.encode()
    kind = b"content-type: application/json"
    if body == "cut off":
        begun = head(line, HOST, authorization, kind, b"content-length: 9")
        assert say(platform.api_port, [begun, b"{"], half_close=True).closed
    else:
        begun = head(line, HOST, authorization, kind, CHUNKED)
        assert say(platform.api_port, [begun, b"1\r\n{\r\n", b"ZZ\r\n"]).status == 400


def test_upgrades_that_are_not_offered(platform: Platform) -> None:
    for protocol in (b"websocket", b"h2c"):
        upgrade = (b"connection: upgrade", b"upgrade: " + protocol)
        assert say(platform.api_port, head(b"GET / HTTP/1.1", HOST, *upgrade)).status == 404


# --- what the API takes ----------------------------------------------------------------------

SCALE = "/projects/default/services/echo/scale"
ROLLBACK = "/projects/default/services/echo/rollback"
BAD_CALLS: dict[str, tuple[str, str, bytes, int]] = {
    "10 MB": ("POST", SCALE, b'{"instances": "' + b"x" * TEN_MB + b'"}', 413),
    "no JSON": ("POST", SCALE, b"{", 400),
    "no UTF-8": ("POST", SCALE, b'{"instances": "\xff"}', 400),
    "NUL": ("POST", SCALE, b'{"instances": "\\u0000"}', 400),
    "half a character": ("POST", SCALE, b'{"instances": "\\ud800"}', 400),
    "no number": ("POST", SCALE, b'{"instances": NaN}', 400),
    "deep": ("POST", SCALE, b"[" * 100_000, 400),
    "a number of 10,000 digits": ("POST", SCALE, b'{"instances": ' + b"1" * 10_000 + b"}", 400),
    "too many instances": ("POST", SCALE, b'{"instances": 1001}', 422),
    "more than its maximum": ("POST", SCALE, b'{"instances": 900}', 422),
    "fewer than none": ("POST", SCALE, b'{"instances": -1}', 422),
    "half an instance": ("POST", SCALE, b'{"instances": 0.5}', 422),
    "an unknown field": ("POST", SCALE, b'{"instances": 1, "force": true}', 422),
    "a list": ("POST", SCALE, b"[]", 422),
    "a name with capitals": ("PUT", "/projects/default/services/Echo", b"{}", 422),
    "a name of 41 letters": ("PUT", f"/projects/default/services/{'a' * 41}", b"{}", 422),
    "a climbing name": ("PUT", "/projects/default/services/%2e%2e", b"{}", 422),
    "a name with NUL": ("PUT", "/projects/default/services/a%00b", b"{}", 422),
    "a name that is no text": ("PUT", "/projects/default/services/%ff", b"{}", 422),
    "an empty definition": ("PUT", "/projects/default/services/new", b"{}", 422),
    "a port beyond all ports": (
        "PUT",
        "/projects/default/services/new",
        b'{"source": {"model": "tiny"}, "egress": [{"host": "a.example", "port": 65536}]}',
        422,
    ),
    "source that was never sent": (
        "PUT",
        "/projects/default/services/new",
        b'{"source": {"digest": "sha256:' + b"0" * 64 + b'"}}',
        422,
    ),
    "a deployment 0": ("POST", ROLLBACK, b'{"deployment": 0}', 422),
    "a deployment never made": ("POST", ROLLBACK, b'{"deployment": 99}', 404),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_CALLS)
def test_bad_calls(platform: Platform, token: str, what: str) -> None:
    method, path, body, status = BAD_CALLS[what]
    answer = httpx.request(
        method,
        f"http://127.0.0.1:{platform.api_port}/api/v1{path}",
        content=body,
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        trust_env=False,
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert len(problem["detail"]) > 10
    if status == 422 and body.startswith(b"{"):
        assert problem.get("path"), problem


def test_bad_headers_and_queries(platform: Platform, token: str) -> None:
    base = f"http://127.0.0.1:{platform.api_port}/api/v1"
    headers = {"Authorization": f"Bearer {token}"}
    echo = f"{base}/projects/default/services/echo"
    with httpx.Client(headers=headers, trust_env=False) as client:
        for query in ("tail=-1", "tail=x", "since=nan", "since=x", "source=shelf", "follow=maybe"):
            answer = client.get(f"{echo}/logs?{query}")
            assert answer.status_code == 422, (query, answer.text)
            assert query.partition("=")[0] in answer.json()["detail"]
        for key, value in (
            ("If-Match", "x"),
            ("If-Match", '"999999"'),
            ("Idempotency-Key", "x" * 10_000),
        ):
            answer = client.post(f"{echo}/pause", headers={key: value})
            assert 400 <= answer.status_code < 500, (key, answer.text)
            assert key.lower() in answer.text.lower()
        for bad in ("", "Bearer", "Bearer x", "Basic eDp4", "Bearer " + "a" * 5000, "Bearer \xff"):
            answer = client.get(
                f"{base}/services", headers={b"Authorization": bad.encode("latin-1")}
            )
            assert answer.status_code == 401, (bad, answer.text)


def test_large_bodies_are_refused_before_they_are_read(platform: Platform) -> None:
    line = b"POST /api/v1/projects/default/plan HTTP/1.1"
    size = b"content-length: %d" % TEN_MB
    assert say(platform.api_port, head(line, HOST, size)).status == 401


# --- manifests -------------------------------------------------------------------------------

ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (each, each, b",".join([b"*%c" % (each - 1)] * 9)) for each in b"bcdefghi"
)
BAD_MANIFESTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "tramontane.yaml"),
    "a list": (b"- 1", "tramontane.yaml"),
    "no YAML": (b"a: [", "line 1"),
    "no UTF-8": (b"name: \xff\xfe", "tramontane.yaml"),
    "NUL": (b"name: a\0b", "tramontane.yaml"),
    "2 MB": (b"#" * 2_000_000, "tramontane.yaml"),
    "an alias bomb": (ALIASES, "tramontane.yaml"),
    "deep": (b"[" * 5000, "tramontane.yaml"),
    "a tag": (b"name: !!python/object/apply:os.system [id]", "line 1"),
    "a key twice": (b"name: x\nname: y", "name"),
    "an unknown key": (b"scal: {min: 1}", "did you mean scale?"),
    "a bad name": (b"name: Hello World", "name"),
    "a bad project": (b"project: ..", "project"),
    "a port out of range": (b"egress: [a.example:70000]", "egress[0]"),
    "a host that is none": (b"egress: [http://a.example/]", "egress[0]"),
    "negative scale": (b"scale: {min: -1}", "scale.min"),
    "min above max": (b"scale: {min: 5, max: 2}", "scale"),
    "too much": (b"resources: {memory: 99999999TiB}", "resources.memory"),
    "too little": (b"resources: {memory: 1KiB}", "resources.memory"),
    "a duration": (b"drain: soon", "drain"),
    "a bad variable": (b"env: {1A: x}", "env"),
    "NUL in a variable": (b'env: {A: "a\\0b"}', "env.A"),
    "an unknown preset": (b"policy: erehwon", "erehwon"),
    "a root outside": (b"build: {root: ../../etc}", "build.root"),
    "a language": (b"build: {language: cobol}", "build.language"),
}  # fmt: skip


VERBS = ("plan", "apply", "deploy")


# They read a manifest by the same function, so each mistake is made with one of them.
@pytest.mark.parametrize(
    ("what", "verb"), [(what, VERBS[n % 3]) for n, what in enumerate(BAD_MANIFESTS)]
)
def test_bad_manifests(platform: Platform, tmp_path: Path, what: str, verb: str) -> None:
    raw, path = BAD_MANIFESTS[what]
    source = write_app(tmp_path / "broken", "v1")
    (source / "tramontane.yaml").write_bytes(raw)
    arguments = [source] if verb == "deploy" else ["-f", source / "tramontane.yaml"]
    done = platform.tram(verb, *arguments, check=2, timeout_s=30)
    assert path in done.stderr
    assert "Traceback" not in done.stderr
    assert "next:" in done.stderr


def test_bad_command_lines(platform: Platform, app_source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    leading = tmp_path / "leading"
    leading.mkdir()
    (leading / "link").symlink_to("/etc/passwd")
    for arguments, part in (
        (["deploy", app_source, "--name", "Bad Name"], "name"),
        (["deploy", app_source, "--project", "../x"], "project"),
        (["deploy", tmp_path / "nowhere"], "nowhere"),
        (["deploy", tmp_path / "out"], "is not a directory"),
        (["deploy", leading], "link"),
        (["deploy", app_source, "--min", "3", "--max", "1"], "--max"),
        (["deploy", app_source, "--env", "A"], "--env"),
        (["scale", "echo", "-1"], "-1"),
        (["scale", "echo", "1001"], "1001"),
        (["scale", "Echo", "1"], "name"),
        (["services", "get", "../echo"], "echo"),
        (["logs", "echo", "--source", "shelf"], "shelf"),
        (["apply", "-f", tmp_path / "nowhere.yaml"], "nowhere.yaml"),
        (["plan", "-f", "/dev/null"], "/dev/null"),
    ):
        done = platform.tram(*arguments, check=2)
        assert part in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


# --- archives --------------------------------------------------------------------------------


def _entry(name: str, content: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in fields.items():
        setattr(entry, key, value)
    return entry, content


def _archive(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry, content in (_entry("Procfile", b"web: sleep 1\n"), *entries):
            archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
    return gzip.compress(raw.getvalue(), 1)


def _bomb() -> bytes:
    """An entry that says it has 3 GB, and an archive that says it goes on like that."""
    entry = tarfile.TarInfo("zeros")
    entry.size = 3 * 1024**3
    return gzip.compress(entry.tobuf() + bytes(1024**2), 1) + gzip.compress(bytes(1024**2), 1) * 50


HOSTILE: dict[str, tuple[bytes, str]] = {
    "climbs": (_archive(_entry("../../../../tmp/evil")), "'../../../../tmp/evil'"),
    "absolute": (_archive(_entry("/tmp/evil")), "'/tmp/evil'"),
    "twice": (_archive(_entry("a"), _entry("a")), "'a'"),
    "a link out": (
        _archive(_entry("l", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "'l'",
    ),
    "a link up": (
        _archive(_entry("l", b"", type=tarfile.SYMTYPE, linkname="../../x")),
        "'l'",
    ),
    "below a link": (
        _archive(
            _entry("d", b"", type=tarfile.SYMTYPE, linkname="e"), _entry("d/evil"), _entry("e/x")
        ),
        "'d/evil'",
    ),
    "a hard link": (
        _archive(_entry("h", b"", type=tarfile.LNKTYPE, linkname="/etc/shadow")),
        "'h'",
    ),
    "a device": (_archive(_entry("null", b"", type=tarfile.CHRTYPE, devmajor=1)), "'null'"),
    "a pipe": (_archive(_entry("pipe", b"", type=tarfile.FIFOTYPE)), "'pipe'"),
    "a name too long": (_archive(_entry("n" * 300)), "'nnn"),
    "a bomb": (_bomb(), "'zeros'"),
    "a header bomb": (
        _archive(_entry("p", pax_headers={"comment": "x" * 3_000_000})),
        "header",
    ),
    "cut off": (_archive(_entry("a", bytes(100_000)))[:-40], "archive"),
    "empty": (b"", "archive"),
    "no gzip": (b"PK\x03\x04" + b"x" * 1000, "archive"),
    "gzip of nonsense": (gzip.compress(b"nonsense" * 1000), "archive"),
}


def test_hostile_archives_fail_their_build_alone(
    platform: Platform, client: Client, tmp_path: Path
) -> None:
    """Uploads are opaque until they are built: then the build fails, and names the entry."""
    below = sorted(path.name for path in platform.home.iterdir())
    failed: dict[str, str] = {}
    try:
        for number, what in enumerate(HOSTILE):
            _deploy_archive(client, HOSTILE[what][0], f"hostile{number}", tmp_path)
        for number, what in enumerate(HOSTILE):

            def ended(name: str = f"hostile{number}") -> str:
                deployment = client.get_deployment("default", name, 1)
                return deployment.message if deployment.status == "failed" else ""

            failed[what] = wait_for(ended, f"{what} to fail", 60)
    finally:
        for number in range(len(HOSTILE)):
            client.delete_service("default", f"hostile{number}")
        wait_for(
            lambda: not [s for s in client.list_services() if s.name.startswith("hostile")],
            "them to be gone",
        )
    for what, (_, part) in HOSTILE.items():
        assert part in failed[what], (what, failed[what])
        assert "Traceback" not in failed[what]
    assert sorted(path.name for path in platform.home.iterdir()) == below
    assert not list((platform.home / "builds/staging").iterdir()), "nothing half done is left"
    assert not Path("/tmp/evil").exists()


def test_a_hostile_update_leaves_what_serves(
    platform: Platform, client: Client, tmp_path: Path
) -> None:
    source = write_app(tmp_path / "app", "v1")
    platform.tram("deploy", source, "--name", "steady")
    try:
        _deploy_archive(client, HOSTILE["climbs"][0], "steady", tmp_path)
        found = platform.wait_status("steady", "degraded")
        assert "'../../../../tmp/evil'" in found["message"]
        assert platform.request("steady").body.startswith(b"v1 ")
    finally:
        platform.tram("delete", "steady")
        wait_for(
            lambda: not [s for s in client.list_services() if s.name == "steady"], "it to be gone"
        )


def test_uploads_that_are_not_what_they_say(platform: Platform, token: str) -> None:
    base = f"http://127.0.0.1:{platform.api_port}/api/v1/sources"
    headers = {"Authorization": f"Bearer {token}"}
    wrong = hashlib.sha256(b"something else").hexdigest()
    with httpx.Client(headers=headers, trust_env=False) as client:
        answer = client.put(f"{base}/sha256:{wrong}", content=b"content")
        assert answer.status_code == 422
        assert answer.json()["path"] == "digest"
        assert client.head(f"{base}/sha256:{wrong}").status_code == 404
        for digest in ("md5:0", f"sha256:{'A' * 64}", "sha256:..%2f..", "sha256:" + "0" * 63):
            answer = client.put(f"{base}/{digest}", content=b"content")
            assert answer.status_code in {404, 422}, answer.text
    assert not list((platform.home / "sources").glob(".*.partial"))


def _deploy_archive(client: Client, content: bytes, name: str, directory: Path) -> None:
    file = directory / f"{name}.tar.gz"
    file.write_bytes(content)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    client.upload_source(digest, file)
    client.put_service("default", name, DefinitionBody(source=DirectorySourceBody(digest=digest)))


def test_errors_reach_python_programs_as_what_they_are(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.scale_service("default", "echo", 900)
    assert caught.value.path == "instances"
    with pytest.raises(TramontaneError, match="lower-case letters"):
        client.get_service("default", "Echo")


def test_clients_that_send_slowly_are_cut(slow: dict[socket.socket, str]) -> None:
    """They were there all the while, and disturbed nobody."""
    told: dict[str, list[bytes]] = {"gateway": [], "API": []}

    def cut() -> bool:
        for connection, part in list(slow.items()):
            try:
                data = connection.recv(4096)
                connection.send(b"a")
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                told[part].append(data)
            else:
                del slow[connection]
        return not slow

    wait_for(cut, "all of them to be cut off", timeout_s=45)
    for answers in told.values():
        assert len(answers) == SLOW_EACH
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
