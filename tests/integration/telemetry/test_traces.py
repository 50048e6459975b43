"""Spans on their way to a real HTTP server, through its failures and our own restarts."""

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.usage_records import keep, make_record
from tramontane.base.errors import InvalidRequest
from tramontane.domain.usage import Usage
from tramontane.reconcile import traces
from tramontane.reconcile.traces import AGE_MAX_S, PAUSE_MAX_S, PERIOD_S, TraceReconciler
from tramontane.store.store import Store, open_store
from tramontane.testing.clocks import FakeClock
from tramontane.wire.collector import Collector, CollectorOptions
from tramontane.wire.otlp import Sender

SENDER = Sender(version="1", resource={"service.name": "tramontane"})


class Server(ThreadingHTTPServer):
    """A collector that answers as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = b"{}"
        self.taken: list[dict[str, Any]] = []
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"

    def requests(self) -> list[str]:
        """The requests whose spans were taken, in their order."""
        return [
            fact["value"]["stringValue"]
            for span in self.taken
            for fact in span["attributes"]
            if fact["key"] == "tramontane.request.id"
        ]


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append({"path": self.path, **dict(self.headers)})
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.status == 200:
            for resource in json.loads(body)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    self.server.taken += scope["spans"]
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "tramontane.db")
    yield opened
    opened.close()


def options(server: Server, **more: Any) -> CollectorOptions:
    return CollectorOptions(url=server.url, **more)


def make(store: Store, clock: FakeClock, collector: Collector) -> TraceReconciler:
    return TraceReconciler(store=store, receiver=collector, sender=SENDER, clock=clock)


def write(store: Store, clock: FakeClock, *numbers: int, **changes: Any) -> None:
    keep(store, *(make_record(each, at=clock.now(), **changes) for each in numbers))


async def test_every_request_from_the_first_look_on(
    store: Store, clock: FakeClock, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "BATCH", 2)
    write(store, clock, 1)
    collector = Collector(options(server, headers={"x-tenant": "7"}, compress=True))
    reconciler = make(store, clock, collector)
    assert await reconciler.look() == PERIOD_S
    assert server.requests() == [], "what was there before is not sent"
    write(store, clock, 2, 3, 4)
    assert await reconciler.look() == 0.0, "there may be more at once"
    assert await reconciler.look() == PERIOD_S
    assert server.requests() == ["req-2", "req-3", "req-4"]
    assert {each["x-tenant"] for each in server.asked} == {"7"}
    assert {each["path"] for each in server.asked} == {"/v1/traces"}
    # Another control plane goes on where this one was.
    write(store, clock, 5)
    await make(store, clock, collector).look()
    assert server.requests()[3:] == ["req-5"]
    await collector.close()


@pytest.mark.parametrize("status", [401, 404, 429, 503, 308])
async def test_what_may_pass_is_waited_for(
    store: Store, clock: FakeClock, server: Server, status: int
) -> None:
    collector = Collector(options(server))
    reconciler = make(store, clock, collector)
    await reconciler.look()
    write(store, clock, 1)
    server.status = status
    pauses = [await reconciler.look() for _ in range(8)]
    assert pauses[:3] == [PERIOD_S, 2 * PERIOD_S, 4 * PERIOD_S]
    assert pauses[-1] == PAUSE_MAX_S
    server.headers = {"retry-after": "300"}
    assert await reconciler.look() == 300.0
    server.status = 200
    write(store, clock, 2)
    assert await reconciler.look() == PERIOD_S
    assert server.requests() == ["req-1", "req-2"]
    await collector.close()


async def test_a_collector_that_is_down_is_waited_for(
    store: Store, clock: FakeClock, server: Server
) -> None:
    nobody = Collector(CollectorOptions(url="http://127.0.0.1:1/v1/traces"))
    reconciler = make(store, clock, nobody)
    await reconciler.look()
    write(store, clock, 1)
    assert await reconciler.look() == PERIOD_S
    await nobody.close()
    collector = Collector(options(server))
    await make(store, clock, collector).look()
    assert server.requests() == ["req-1"]
    await collector.close()


async def test_what_is_refused_for_good_is_left_out_and_said(
    store: Store, clock: FakeClock, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector(options(server))
    reconciler = make(store, clock, collector)
    await reconciler.look()
    write(store, clock, 1)
    server.status = 400
    await reconciler.look()
    assert "spans of 1 requests: it refuses them with HTTP status 400; they are left out" in (
        caplog.text
    )
    server.status = 200
    server.body = b'{"partialSuccess": {"rejectedSpans": "1"}}'
    write(store, clock, 2)
    await reconciler.look()
    assert server.requests() == ["req-2"]
    assert "it did not take 1 of them" in caplog.text
    await collector.close()


async def test_neither_old_requests_nor_those_of_unrecorded_traces(
    store: Store, clock: FakeClock, server: Server
) -> None:
    collector = Collector(options(server))
    reconciler = make(store, clock, collector)
    await reconciler.look()
    write(store, clock, 1)
    clock.advance(AGE_MAX_S + 1)
    write(store, clock, 2, traceparent=f"00-{'a' * 32}-{'b' * 16}-00")
    await reconciler.look()
    assert server.asked == []
    write(store, clock, 3, traceparent=f"00-{'a' * 32}-{'b' * 16}-01", usage=Usage())
    await reconciler.look()
    (span,) = server.taken
    assert (span["traceId"], span["parentSpanId"]) == ("a" * 32, "b" * 16)
    await collector.close()


def test_certificates_that_are_not_there_are_said() -> None:
    with pytest.raises(InvalidRequest, match="cannot read the certificates in /nowhere"):
        Collector(CollectorOptions(url="https://a", certificates="/nowhere"))
