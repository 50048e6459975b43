"""The edge towards users: names, refusals, limits, headers, protocols, what is logged."""

import asyncio
import json
import resource
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.integration.gateway.bed import Bed, Exchange, asleep, awake
from tramontane.domain.route import Refusal, Upstream

pytestmark = pytest.mark.timeout(60)


async def test_unknown_host(bed: Bed) -> None:
    answer = await bed.ask("nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_such_service")
    assert set(answer.json()["error"]) == {"code", "message"}


async def test_host_with_port_and_in_capitals(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    for host in (f"web.p.localhost:{bed.port}", "WEB.p.LOCALHOST"):
        assert (await bed.ask("web", headers={"host": host})).status_code == 200


async def test_refusal_names_its_reason_and_when_to_retry(bed: Bed) -> None:
    refusal = Refusal(status=451, code="refused_by_policy", message='50% "no"', retry_after_s=60)
    bed.publish("web", refusal)
    await bed.applied()
    answer = await bed.ask("web")
    assert answer.status_code == 451
    assert answer.json() == {"error": {"code": "refused_by_policy", "message": '50% "no"'}}
    assert answer.headers["retry-after"] == "60"
    assert answer.headers["content-type"] == "application/json"


async def test_paths_and_headers_arrive_as_sent(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    reader, writer = await asyncio.open_connection("127.0.0.1", bed.port)
    writer.write(
        b"GET /a//b/../c%2Fd?q=1%20//2 HTTP/1.1\r\nhost: web.p.localhost\r\n"
        b"x-tramontane-project: forged\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n"
        b"x-under_score: 1\r\nx-forwarded-for: 1.2.3.4\r\nx-request-id: mine\r\n"
        b"connection: close\r\n\r\n"
    )
    answer = await reader.read()
    writer.close()
    assert b" 200 " in answer
    assert b"envoy" not in answer.lower().partition(b"\r\n\r\n")[0]
    seen = server.seen[0]
    assert seen.path == "/a//c%2Fd?q=1%20//2"
    names = set(seen.headers)
    assert not {name for name in names if name.startswith(("x-tramontane", "x-envoy"))}
    assert "x-under_score" not in names
    assert seen.headers["x-forwarded-for"].startswith("1.2.3.4,")
    assert seen.headers["x-request-id"] != "mine"
    line = (await bed.log_lines(1))[0]
    assert line["path"] == "/a//c%2Fd"
    assert (line["project"], line["service"], line["upstream"]) == ("p", "web", "web@1")


async def test_headers_over_the_limit(bed: Bed) -> None:
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    answer = await bed.ask("web", headers={"x-large": "x" * 100_000})
    assert answer.status_code == 431
    assert answer.json()["error"]["code"] == "headers_too_large"
    assert bed.wakes.empty()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a%00b HTTP/1.1\r\nhost: web.p.localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: web.p.localhost\r\ntransfer-encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: web.p.localhost\r\ntransfer-encoding: chunked\r\n"
        b"content-length: 4\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_refused_in_words(bed: Bed, request_bytes: bytes) -> None:
    bed.publish("web", asleep("web@1"))
    await bed.applied()
    reader, writer = await asyncio.open_connection("127.0.0.1", bed.port)
    writer.write(request_bytes)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert body["error"]["code"] == "malformed_request"
    assert "not valid HTTP (" in body["error"]["message"]
    assert bed.wakes.empty()


async def test_http2_without_tls(bed: Bed) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    process = await asyncio.create_subprocess_exec(
        curl, "-sS", "--http2-prior-knowledge", "-o", "/dev/null",
        "-w", "%{http_version} %{http_code}",
        "-H", "host: web.p.localhost", f"http://127.0.0.1:{bed.port}/",
        stdout=subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert output == b"2 200"


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of some thousand connections in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8192:
        pytest.skip(f"this user may open {hard} files; the test needs 8192")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
async def test_more_than_1024_requests_at_once(bed: Bed) -> None:
    async def slow(exchange: Exchange) -> None:
        if len(server.seen) == 1300:
            everybody.set()
        await everybody.wait()
        await exchange.answer(b"x")

    everybody = asyncio.Event()
    server = await bed.serve("a", slow)
    bed.publish("web", awake("web@1", server))
    await bed.applied()

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", bed.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: web.p.localhost\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask()) for _ in range(1300)]
    assert all(b" 200 " in task.result() for task in asked)


async def test_a_rejected_resource_is_reported_and_the_rest_goes_on(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    bed.publish("bad", Upstream(name="bad@1", endpoints=("/" + "x" * 200,)))
    await bed.applied()
    assert [rejection.names for rejection in bed.rejections] == [("bad@1",)]
    bed.publish("new", awake("new@1", server))
    await bed.applied()
    assert (await bed.ask("new")).status_code == 200
    assert (await bed.ask("web")).status_code == 200


async def test_a_bad_route_is_left_out_and_the_rest_goes_on(bed: Bed) -> None:
    server = await bed.serve("a")
    bed.publish("web", awake("web@1", server))
    await bed.applied()
    for n in range(5):
        bed.publish(f"new{n}", awake(f"new{n}@1", server))
        if n == 2:
            bed.publish("bad", Refusal(status=9999, code="x", message="no such status"))
            bed.publish("worse", Refusal(status=9999, code="x", message="no such status"))
    async with asyncio.timeout(10):
        while len(bed.rejections) < 2:
            await asyncio.sleep(0.01)
    await bed.applied()
    assert {rejection.names for rejection in bed.rejections} == {("p/bad",), ("p/worse",)}
    for service in ("web", *(f"new{n}" for n in range(5))):
        assert (await bed.ask(service)).status_code == 200
    bed.publish("bad", awake("bad@1", server))
    await bed.applied()
    assert (await bed.ask("bad")).status_code == 200
