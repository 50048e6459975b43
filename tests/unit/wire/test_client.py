"""The clients: typed answers, typed errors, retries, streams, discovery."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tramontane import Client
from tramontane.base import errors
from tramontane.wire import calls
from tramontane.wire.client import AsyncClient
from tramontane.wire.codes import ERRORS, EXIT_CODES, HTTP_STATUSES, error_from_answer
from tramontane.wire.discovery import home_directory, read_platform, read_token
from tramontane.wire.exchange import Exchange
from tramontane.wire.retries import retry_delay_s
from tramontane.wire.schemas import Problem

CELL = {
    "id": "cel_1",
    "name": "local",
    "runtime": "process",
    "isolation": "sandbox",
    "reachable": True,
    "memory_bytes": 1,
    "cpus": 1.0,
    "instances": 0,
    "facts": [],
    "of_a_later_version": True,
}
Handler = Callable[[httpx.Request], httpx.Response]


def make_client(handler: Handler) -> Client:
    return Client("http://api.test", "secret", transport=httpx.MockTransport(handler))


def make_async_client(handler: Handler) -> AsyncClient:
    return AsyncClient("http://api.test", "secret", transport=httpx.MockTransport(handler))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once: the decision whether and when is tested apart."""
    for name in ("after_failure", "after_refusal"):
        real = getattr(Exchange, name)
        monkeypatch.setattr(Exchange, name, lambda *args, real=real: 0.0 * real(*args))


def test_typed_answer_and_headers() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=[CELL])

    with make_client(answer) as client:
        (cell,) = client.list_cells()
    assert cell.name == "local"
    assert str(seen[0].url) == "http://api.test/api/v1/cells"
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert "idempotency-key" not in seen[0].headers


def test_typed_errors() -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        problem = {"title": "x", "status": 404, "detail": "no cell", "code": "not_found"}
        return httpx.Response(404, json=problem | {"path": "name"})

    with make_client(answer) as client, pytest.raises(errors.NotFound, match="no cell") as caught:
        client.get_cell("nowhere")
    assert caught.value.path == "name"


def test_repeats_with_the_same_key() -> None:
    keys: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        if len(keys) == 1:
            raise httpx.ReadError("reset")
        if len(keys) == 2:
            return httpx.Response(503, headers={"retry-after": "0"})
        return httpx.Response(204)

    with make_client(answer) as client:
        assert client.delete_project("shop") is None
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_does_not_repeat_what_may_have_happened() -> None:
    paths: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        raise httpx.ReadError("reset")

    with make_client(answer) as client, pytest.raises(errors.Unavailable):
        client.create_token(name="x")
    assert len(paths) == 1


@pytest.mark.parametrize(
    ("cause", "error", "part"),
    [
        (httpx.ConnectError("refused"), errors.Unavailable, "start one with `tram up`"),
        (httpx.ReadTimeout("late"), errors.TimedOut, "did not answer GET /api/v1/cells in time"),
    ],
)
def test_no_answer(cause: Exception, error: type[Exception], part: str) -> None:
    count = 0

    def answer(_: httpx.Request) -> httpx.Response:
        nonlocal count
        count += 1
        raise cause

    with make_client(answer) as client, pytest.raises(error, match=part):
        client.list_cells()
    assert count == 1


def test_answer_of_something_else() -> None:
    client = make_client(lambda _: httpx.Response(200, text="<html>"))
    with client, pytest.raises(errors.Unavailable, match="does not understand"):
        client.list_cells()


def test_upload(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(gzip.compress(b"x" * 100_000))
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(404)
        assert request.headers["content-length"] == str(archive.stat().st_size)
        bodies.append(request.read())
        return httpx.Response(200, json={"digest": "sha256:1", "size_bytes": 2})

    with make_client(answer) as client:
        assert not client.has_source("sha256:1")
        assert client.upload_source("sha256:1", archive).size_bytes == 2
    assert bodies == [archive.read_bytes()]


LINES = b'{"at":1,"source":"build","text":"a"}\n\n{"at":2,"source":"build","text":"b"}'


def test_logs() -> None:
    with make_client(lambda _: httpx.Response(200, content=LINES)) as client:
        assert [line.text for line in client.stream_logs("p", "s", follow=True)] == ["a", "b"]


def test_stream_refused() -> None:
    client = make_client(lambda _: httpx.Response(401))
    with client, pytest.raises(errors.Unauthenticated):
        next(client.stream_logs("p", "s"))


async def test_async_client() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            return httpx.Response(200, content=LINES)
        return httpx.Response(200, json=[CELL])

    async with make_async_client(answer) as client:
        assert [cell.name for cell in await client.list_cells()] == ["local"]
        assert [line.text async for line in client.stream_logs("p", "s")] == ["a", "b"]


async def test_async_upload(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(b"z" * 200_000)
    bodies: list[bytes] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(await request.aread())
        return httpx.Response(200, json={"digest": "sha256:1", "size_bytes": 2})

    transport = httpx.MockTransport(answer)
    async with AsyncClient("http://api.test", "secret", transport=transport) as client:
        await client.upload_source("sha256:1", archive)
    assert bodies == [archive.read_bytes()]


# --- codes, retries, discovery -----------------------------------------------------------------


def test_each_error_has_a_status_and_an_exit_code() -> None:
    assert {each.code for each in ERRORS} == set(HTTP_STATUSES) == set(EXIT_CODES)


@pytest.mark.parametrize("error", ERRORS)
def test_errors_survive_the_wire(error: type[errors.TramontaneError]) -> None:
    status = HTTP_STATUSES[error.code]
    problem = Problem(title="t", status=status, detail="d", code=error.code, path="p", log="l")
    back = error_from_answer(status, problem.model_dump_json().encode(), 2.0)
    assert type(back) is error
    assert (back.message, back.path, back.detail, back.retry_after_s) == ("d", "p", "l", 2.0)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"<html>oh</html>", b'{"code":5}', b"[" * 9999]
)
def test_foreign_answers_are_errors_too(body: bytes) -> None:
    assert isinstance(error_from_answer(502, body), errors.Unavailable)
    assert type(error_from_answer(418, body)) is errors.TramontaneError


def test_openai_errors() -> None:
    body = json.dumps({"error": {"message": "no such model"}}).encode()
    assert error_from_answer(404, body).message == "no such model"


def test_retries_end() -> None:
    call = calls.get_status()
    assert retry_delay_s(call, 0, status=None) == 0.2
    assert retry_delay_s(call, 0, status=503, retry_after_s=2.0) == 2.0
    assert retry_delay_s(call, 0, status=503, retry_after_s=60.0) is None
    assert retry_delay_s(call, 0, status=400) is None
    assert retry_delay_s(call, 3, status=None) is None


def test_discovery(tmp_path: Path) -> None:
    home = home_directory({"TRAM_HOME": str(tmp_path)})
    assert home_directory({"XDG_DATA_HOME": "/data"}) == Path("/data/tramontane")
    assert home_directory({"XDG_DATA_HOME": "relative"}).name == "tramontane"
    with pytest.raises(errors.Unavailable, match="tram up"):
        read_platform({}, home)
    with pytest.raises(errors.Unauthenticated):
        read_token({}, home)
    (home / "platform.json").write_text('{"api": "http://h:1/", "gateway": "http://h:2"}')
    (home / "credentials").write_text("secret\n")
    assert read_platform({}, home).api == "http://h:1"
    assert read_token({}, home) == "secret"
    assert read_token({"TRAM_TOKEN": "other"}, home) == "other"
    elsewhere = read_platform({"TRAM_API": "https://x.test"}, home)
    assert (elsewhere.api, elsewhere.gateway) == ("https://x.test", None)
    with pytest.raises(errors.InvalidRequest, match="TRAM_API"):
        read_platform({"TRAM_API": "x.test"}, home)
    with pytest.raises(errors.Unauthenticated):
        read_token({"TRAM_TOKEN": "two words"}, home)
    (home / "platform.json").write_text("{")
    with pytest.raises(errors.Unavailable, match="damaged"):
        read_platform({}, home)


def test_peer_hides_its_token() -> None:
    assert "secret" not in repr(Client("http://a", "secret").peer)
