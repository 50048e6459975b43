"""A collector of OpenTelemetry, spoken to by OTLP/HTTP. ``reconcile.traces`` sends through it."""

import gzip
import json
import ssl
from dataclasses import dataclass, field
from typing import cast

import httpx

from tramontane.base.errors import InvalidRequest, Unavailable
from tramontane.wire.codes import retry_after

TIMEOUT_S = 10.0
WAIT = frozenset({401, 403, 404, 408, 429, 502, 503, 504})
"""Those that say to try again, and those that an operator mends: a token, an address."""


@dataclass(frozen=True, kw_only=True)
class CollectorOptions:
    """Where a collector is, and how it wants to be spoken to."""

    url: str
    headers: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """They may hold a credential."""
    timeout_s: float = TIMEOUT_S
    compress: bool = False
    certificates: str | None = None
    """File with those to trust; None: the usual ones."""


class Collector:
    """One connection, kept."""

    def __init__(self, options: CollectorOptions) -> None:
        self._options = options
        self._http = httpx.AsyncClient(
            timeout=options.timeout_s, verify=_trust(options.certificates)
        )

    async def send(self, document: bytes) -> str:
        """Send one export; return what the collector complains of, if it took it all the same.

        Raises ``InvalidRequest`` if it will never take it, and ``Unavailable`` if it may later.
        """
        headers = {**self._options.headers, "content-type": "application/json"}
        if self._options.compress:
            document, headers["content-encoding"] = gzip.compress(document), "gzip"
        try:
            answer = await self._http.post(self._options.url, content=document, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(f"it does not answer ({type(error).__name__})") from error
        status = answer.status_code
        if status < 300:
            return _complaint(answer.content)
        if status < 400 or status in WAIT:
            wait_s = retry_after(answer.headers.get("retry-after"))
            raise Unavailable(f"it answers with HTTP status {status}", retry_after_s=wait_s)
        raise InvalidRequest(f"it refuses them with HTTP status {status}")

    async def close(self) -> None:
        """Close the connection."""
        await self._http.aclose()


def _trust(certificates: str | None) -> ssl.SSLContext | bool:
    if certificates is None:
        return True
    try:
        return ssl.create_default_context(cafile=certificates)
    except OSError as error:
        raise InvalidRequest(
            f"cannot read the certificates in {certificates}: {error.strerror or error}",
            path="OTEL_EXPORTER_OTLP_CERTIFICATE",
        ) from error


def _complaint(body: bytes) -> str:
    try:
        answer: object = json.loads(body or b"{}")
    except ValueError:
        return ""
    # Protobuf's JSON writes large integers as text.
    rejected = str(_part(_part(answer, "partialSuccess"), "rejectedSpans") or 0)
    return "" if rejected == "0" else f"it did not take {rejected[:20]} of them"


def _part(value: object, name: str) -> object:
    return cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
