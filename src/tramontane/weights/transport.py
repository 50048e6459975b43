"""HTTP to the sources of weights: one place that decides where a request, and a secret, may go.

Credentials belong to the origin they were given for. A redirect to another origin (a content
delivery network, a storage behind a registry) is followed without them, and never from https to
http. Addresses in errors have no query: that is where such origins keep their signatures.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from tramontane.base.errors import SourceFailed, TramontaneError

CONNECT_S = 5.0
READ_S = 30.0
DOCUMENT_READ_S = 10.0
"""Somebody waits for it."""
REDIRECTS_MAX = 5
ATTEMPTS = 3
PAUSE_FIRST_S = 0.25
PAUSE_MAX_S = 20.0
DOCUMENT_BYTES_MAX = 32 * 1024**2
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that say: try again."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to ask of a source."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    credentials: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Headers for the origin of ``url`` alone."""
    dial: Callable[[str, int], str | None] | None = field(default=None, repr=False, compare=False)
    """Takes host and port, redirects' included, and returns the address to connect to; None: as
    the name says. Raises where it may not be asked."""
    tag: str = ""
    """What the answer's ``ETag`` has to be, where the answer would be of no use otherwise."""


class Answer:
    """The head of an answer, with its body still to be read."""

    def __init__(self, response: httpx.Response, host: str, *, redirected: bool) -> None:
        self._response = response
        self.host = host
        """Who answered, as an error names it."""
        self.redirected = redirected
        """Whether somebody else than who was asked gives the answer."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Read without regard to case."""
        return self._response.headers

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises ``Interrupted`` if it ends early."""
        try:
            yield from self._response.iter_raw()
        except httpx.TransportError as error:
            raise _interrupted(error, self.host) from error

    def read(self, bytes_max: int = DOCUMENT_BYTES_MAX) -> bytes:
        """Return the body. Raises ``SourceFailed`` if it is longer than any that makes sense."""
        body = bytearray()
        try:
            for chunk in self._response.iter_bytes():
                body += chunk
                if len(body) > bytes_max:
                    raise SourceFailed(f"{self.host} answers with more than {bytes_max} bytes")
        except httpx.TransportError as error:
            raise _interrupted(error, self.host) from error
        except httpx.DecodingError as error:
            raise SourceFailed(f"{self.host} answers with what cannot be unpacked") from error
        return bytes(body)


class Interrupted(SourceFailed):
    """The connection failed, or the source is busy: worth another attempt."""


class Transport:
    """Connections to all sources; may be shared between threads."""

    def __init__(self, pause: Callable[[float], object]) -> None:
        """``pause`` waits for so many seconds between two attempts, or until nobody wants more."""
        self.pause = pause
        self._client = httpx.Client(
            # What is measured and hashed are the bytes of the file, not those of an encoding.
            headers={"User-Agent": "tramontane", "Accept-Encoding": "identity"},
            # Proxies and certificates are the operator's to choose, by the usual variables.
            trust_env=True,
            # Nobody who is asked for files has a reason to know us again.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @contextmanager
    def open(
        self, request: Request, *, follow: bool = True, read_s: float = READ_S
    ) -> Generator[Answer]:
        """Ask once and give the answer, whatever its status.

        Raises ``Interrupted`` where there is none. With ``follow`` False a redirect to another
        origin is an answer.
        """
        url, redirects, own = request.url, 0, True
        while True:
            # Whoever was led away once is not trusted to lead back.
            own = own and _origin(url) == _origin(request.url)
            headers = {**request.headers, **(request.credentials if own else {})}
            response = self._send(replace(request, url=url, headers=headers), read_s)
            try:
                if not response.has_redirect_location:
                    yield Answer(response, _host(url), redirected=not own)
                    return
                target = urljoin(url, response.headers["location"])
                _check_redirect(url, target)
                if not follow and _origin(target) != _origin(url):
                    yield Answer(response, _host(url), redirected=False)
                    return
            finally:
                response.close()
            url, redirects = target, redirects + 1
            if redirects > REDIRECTS_MAX:
                raise SourceFailed(f"{_host(request.url)} redirects without end")

    def fetch(
        self,
        request: Request,
        refuse: Callable[[Answer, bytes], TramontaneError],
        *,
        follow: bool = True,
    ) -> tuple[Mapping[str, str], bytes]:
        """Return headers and body of a good answer, after a few attempts.

        Raises what ``refuse`` makes of any other, or ``SourceFailed``.
        """
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                with self.open(request, follow=follow, read_s=DOCUMENT_READ_S) as answer:
                    body = answer.read()
                    if answer.status < (300 if follow else 400):
                        return answer.headers, body
                    if answer.status not in PASSING or last:
                        raise refuse(answer, body)
                    pause_s = wait_asked_for(answer) or pause_after(attempt)
            except Interrupted:
                if last:
                    raise
                pause_s = pause_after(attempt)
            self.pause(pause_s)
        raise AssertionError("the last attempt returns or raises")

    def _send(self, request: Request, read_s: float) -> httpx.Response:
        headers, options = dict(request.headers), dict[str, str]()
        try:
            url = httpx.URL(request.url)
            if request.dial is not None:
                address = request.dial(url.host, _origin(request.url)[2] or 0)
                # A proxy of the operator's connects by name, and where it may is its own matter.
                if address is not None and not _is_proxied(url):
                    headers["Host"] = url.netloc.decode("ascii")
                    options["sni_hostname"] = url.host
                    url = url.copy_with(host=address)
            return self._client.send(
                self._client.build_request(
                    request.method,
                    url,
                    headers=headers,
                    timeout=httpx.Timeout(read_s, connect=CONNECT_S),
                    extensions=options,
                ),
                stream=True,
            )
        except httpx.InvalidURL as error:
            raise SourceFailed(
                f"{_host(request.url)} leads to an address that cannot be read"
            ) from error
        except httpx.TransportError as error:
            raise _interrupted(error, _host(request.url)) from error


def pause_after(failures: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return min(PAUSE_FIRST_S * 2**failures, PAUSE_MAX_S)


def wait_asked_for(answer: Answer) -> float | None:
    """Return how long a busy source wants us to wait, within what makes sense."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), PAUSE_MAX_S) if text.isascii() and text.isdigit() else None


def _check_redirect(source: str, target: str) -> None:
    old, new = urlsplit(source), urlsplit(target)
    if new.scheme not in {"http", "https"} or (old.scheme, new.scheme) == ("https", "http"):
        raise SourceFailed(f"{_host(source)} redirects to {new.scheme}, which is not followed")


def _interrupted(error: httpx.TransportError, host: str) -> Interrupted:
    match error:
        case httpx.ConnectTimeout() | httpx.ReadTimeout() | httpx.PoolTimeout():
            what = "does not answer in time"
        case httpx.ConnectError():
            # The text is the system's own: no such name, refused, an untrusted certificate.
            what = f"cannot be reached: {error}"
        case _:
            what = "broke the connection off"
    return Interrupted(f"{host} {what}")


def _is_proxied(url: httpx.URL) -> bool:
    proxies = getproxies()
    return (url.scheme in proxies or "all" in proxies) and not proxy_bypass(url.host)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or usual


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the source"
