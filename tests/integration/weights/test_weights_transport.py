"""Where a request, and a secret, may go."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tramontane.base.errors import SourceFailed, TramontaneError
from tramontane.weights import transport as subject
from tramontane.weights.transport import Answer, Request, Transport, pause_after


@dataclass
class Site:
    """A server that answers by path; every request's headers are kept."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def redirect(self, path: str, target: str) -> None:
        self.answers[path] = (302, {"Location": target, "Set-Cookie": "known=yes"}, b"")

    @property
    def headers(self) -> dict[str, str]:
        return self.asked[-1][1]


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    servers: list[ThreadingHTTPServer] = []
    found: list[Site] = []
    for _ in range(2):
        server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        site = Site(f"http://127.0.0.1:{server.server_address[1]}")

        class Handler(BaseHTTPRequestHandler):
            known = site

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

            def do_GET(self) -> None:
                known = {key.lower(): value for key, value in self.headers.items()}
                self.known.asked.append((self.path, known))
                status, headers, body = self.known.answers.get(self.path, (200, {}, b"here"))
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server.RequestHandlerClass = Handler
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        servers.append(server)
        found.append(site)
    yield found[0], found[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(lambda _: None)
    yield made
    made.close()


def refuse(answer: Answer, body: bytes) -> TramontaneError:
    return SourceFailed(f"{answer.host} says {answer.status} {body.decode()}")


def ask(url: str) -> Request:
    credentials = {"Authorization": "Bearer secret", "x-amz-date": "now"}
    return Request(url=url, headers={"Accept": "a/b"}, credentials=credentials)


def test_credentials_stay_with_the_origin_they_are_for(
    sites: tuple[Site, Site], transport: Transport
) -> None:
    own, other = sites
    own.redirect("/same", "/there")
    own.redirect("/away", f"{other.url}/back?signature=1")
    other.redirect("/back?signature=1", f"{own.url}/there")
    assert transport.fetch(ask(f"{own.url}/same"), refuse)[1] == b"here"
    assert own.headers["authorization"] == "Bearer secret"
    transport.fetch(ask(f"{own.url}/away"), refuse)
    assert other.headers["accept"] == "a/b"
    assert not {"authorization", "x-amz-date", "cookie", "referer"} & set(other.headers)
    # Nor is it given to whatever the other one chose to lead back to.
    assert own.asked[-1][0] == "/there"
    assert not {"authorization", "x-amz-date", "cookie"} & set(own.headers)
    assert "secret" not in repr(ask(own.url))


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_out_of_http_is_not_followed(
    sites: tuple[Site, Site], transport: Transport, target: str
) -> None:
    own, _ = sites
    own.redirect("/x", target)
    with pytest.raises(SourceFailed, match="redirects to"):
        transport.fetch(ask(f"{own.url}/x"), refuse)
    with pytest.raises(SourceFailed, match="redirects to http, which is not followed"):
        subject._check_redirect("https://a.eu/x", "http://a.eu/x")


def test_redirects_in_a_circle_end(sites: tuple[Site, Site], transport: Transport) -> None:
    own, _ = sites
    own.redirect("/x", "/x")
    with pytest.raises(SourceFailed, match="redirects without end"):
        transport.fetch(ask(f"{own.url}/x"), refuse)


def test_a_busy_source_is_asked_a_few_times_and_a_clear_no_once(
    sites: tuple[Site, Site], transport: Transport
) -> None:
    own, _ = sites
    own.answers["/busy"] = (503, {}, b"later")
    own.answers["/no"] = (403, {}, b"never")
    with pytest.raises(SourceFailed, match="says 503 later"):
        transport.fetch(ask(f"{own.url}/busy"), refuse)
    assert len(own.asked) == subject.ATTEMPTS
    with pytest.raises(SourceFailed, match="says 403 never"):
        transport.fetch(ask(f"{own.url}/no"), refuse)
    assert len(own.asked) == subject.ATTEMPTS + 1


def test_an_answer_that_is_too_long_to_be_one_is_cut_off(
    sites: tuple[Site, Site], transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, _ = sites
    own.answers["/x"] = (200, {}, b"x" * 1000)
    with (
        pytest.raises(SourceFailed, match="answers with more than 10 bytes"),
        transport.open(ask(f"{own.url}/x")) as answer,
    ):
        answer.read(10)


def test_every_hop_is_judged_and_the_judged_address_is_dialled(
    sites: tuple[Site, Site], transport: Transport
) -> None:
    own, other = sites
    judged: list[tuple[str, int]] = []

    def dial(host: str, port: int) -> str | None:
        judged.append((host, port))
        if host == "near.example":
            raise SourceFailed("near.example may not be asked")
        return "127.0.0.1"

    named = own.url.replace("127.0.0.1", "far.example")
    port = int(own.url.rpartition(":")[2])
    request = Request(url=f"{named}/x", dial=dial)
    assert transport.fetch(request, refuse)[1] == b"here"
    assert own.headers["host"] == f"far.example:{port}"
    own.redirect("/x", f"http://near.example:{port}/")
    with pytest.raises(SourceFailed, match="may not be asked"):
        transport.fetch(request, refuse)
    assert judged == [("far.example", port), ("far.example", port), ("near.example", port)]
    assert not other.asked


def test_pauses_grow_to_a_limit() -> None:
    pauses = [pause_after(failures) for failures in range(12)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.25, 20.0)
