"""The standard-library sender: what it sends, when it repeats, how it reads streams."""

import io
import json
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, cast

import pytest

from tramontane.base import errors
from tramontane.base.ids import counting_ids
from tramontane.wire import calls
from tramontane.wire.calls import Call
from tramontane.wire.plain import PlainSender, is_present
from tramontane.wire.streams import EventDecoder, NdjsonDecoder

Answer = bytes | Exception


class FakeConnection:
    """Gives one prepared answer and keeps what was asked."""

    def __init__(self, answer: Answer, requests: list[tuple[Any, ...]]) -> None:
        self._answer = answer
        self._requests = requests

    def request(self, method: str, target: str, body: object, headers: dict[str, str]) -> None:
        if isinstance(body, io.BufferedReader):
            body = body.read()
        self._requests.append((method, target, body, headers))
        if isinstance(self._answer, Exception):
            raise self._answer

    def getresponse(self) -> HTTPResponse:
        assert isinstance(self._answer, bytes)
        response = HTTPResponse(cast(Any, _Socket(self._answer)))
        response.begin()
        return response

    def close(self) -> None:
        pass


class _Socket:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


class Sender(PlainSender):
    """The real sender over prepared connections."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.pauses: list[float] = []
        self.requests: list[tuple[Any, ...]] = []
        self.answers = list(answers)
        super().__init__(
            "http://host.test:1/base", "secret", ids=counting_ids(), pause=self.pauses.append
        )

    def _connect(self, call: Call) -> HTTPConnection:
        return cast(HTTPConnection, FakeConnection(self.answers.pop(0), self.requests))


def answer(status: int, body: bytes = b"", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def test_what_is_sent() -> None:
    sender = Sender([answer(200, b'{"instances": 1}')])
    assert sender.fetch(calls.scale_service("p", "s", 0)) == {"instances": 1}
    ((method, target, body, headers),) = sender.requests
    assert (method, target) == ("POST", "/base/api/v1/projects/p/services/s/scale")
    assert json.loads(body) == {"instances": 0}
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Idempotency-Key"].startswith("key_")


def test_repeats_with_the_same_key_and_growing_pauses() -> None:
    sender = Sender([ConnectionResetError("reset"), answer(503), answer(202, b"{}")])
    sender.fetch(calls.delete_service("p", "s"))
    assert sender.pauses == [0.2, 0.4]
    assert len({headers["Idempotency-Key"] for *_, headers in sender.requests}) == 1


@pytest.mark.parametrize(
    ("call", "failure", "error"),
    [
        (calls.create_token(), ConnectionResetError("reset"), errors.Unavailable),
        (calls.get_status(), TimeoutError("late"), errors.TimedOut),
        (calls.get_status(), answer(503, headers="Retry-After: 600\r\n"), errors.Unavailable),
        (calls.get_status(), answer(404, b'{"code":"not_found"}'), errors.NotFound),
        (calls.get_status(), answer(200, b"<html>"), errors.Unavailable),
        (calls.get_status(), b"nonsense", errors.Unavailable),
    ],
)
def test_not_repeated(call: Call, failure: Answer, error: type[Exception]) -> None:
    # "nonsense" is a broken connection, which is repeated until patience ends.
    sender = Sender([failure] * 4)
    with pytest.raises(error):
        sender.fetch(call)


def test_gives_up() -> None:
    sender = Sender([answer(503)] * 4)
    with pytest.raises(errors.Unavailable):
        sender.fetch(calls.get_status())
    assert sender.pauses == [0.2, 0.4, 0.8]


def test_stream() -> None:
    lines = b'{"a":1}\n\n{"a":2}\n'
    sender = Sender([answer(200, lines)])
    assert list(sender.stream(calls.stream_logs("p", "s"))) == [b'{"a":1}', b'{"a":2}']


def test_upload_and_presence(tmp_path: Path) -> None:
    archive = tmp_path / "a"
    archive.write_bytes(b"archive")
    sender = Sender([answer(404), answer(200), answer(200, b"{}")])
    assert not is_present(sender, calls.check_source("sha256:1"))
    assert is_present(sender, calls.check_source("sha256:1"))
    sender.fetch(calls.upload_source("sha256:1", archive))
    assert sender.requests[-1][2] == b"archive"
    assert sender.requests[-1][3]["Content-Length"] == "7"


def test_nobody_listens() -> None:
    sender = PlainSender(
        "http://host.invalid:1", None, ids=counting_ids(), pause=lambda _: pytest.fail("waits")
    )

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPConnection, "connect", refuse)
        with pytest.raises(errors.Unavailable, match="start one with `tram up`"):
            sender.fetch(calls.get_status())


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_decoders_do_not_care_where_chunks_end(size: int) -> None:
    def fed(feed: Callable[[bytes], list[bytes]], raw: bytes) -> list[bytes]:
        return [each for at in range(0, len(raw), size) for each in feed(raw[at : at + size])]

    events = b": hi\r\n\r\nevent: service\ndata: {\ndata:}\n\ndata: cut"
    assert fed(EventDecoder().feed, events) == [b"{\n}"]
    assert fed(NdjsonDecoder().feed, b"1\r\n\n2\n3") == [b"1", b"2"]
