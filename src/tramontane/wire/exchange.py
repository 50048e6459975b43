"""What the synchronous and the asynchronous client decide alike around one call.

``wire.client`` only sends; whether to try again, which error a failure is, and how an answer
becomes a value is here, once.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from tramontane.base.errors import TimedOut, TramontaneError, Unavailable
from tramontane.base.ids import random_id
from tramontane.wire.calls import Call
from tramontane.wire.codes import error_from_answer, retry_after
from tramontane.wire.discovery import (
    check_address,
    check_token,
    own_environment,
    read_platform,
    read_token,
)
from tramontane.wire.retries import retry_delay_s

T = TypeVar("T")

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The platform that a client talks to."""

    address: str
    token: str

    @property
    def distant(self) -> bool:
        """Whether proxies of the environment may stand in between: never to this machine."""
        return urlsplit(self.address).hostname not in _LOOPBACK

    def __repr__(self) -> str:
        return f"Peer({self.address!r})"


def find_peer(address: str | None, token: str | None, home: Path | None) -> Peer:
    """Return the platform that the arguments, the environment or ``TRAM_HOME`` name."""
    environment = own_environment()
    return Peer(
        address=check_address(address, "address")
        if address is not None
        else read_platform(environment, home).api,
        token=check_token(token) if token is not None else read_token(environment, home),
    )


class Exchange:
    """One call with its attempts."""

    def __init__(self, peer: Peer, call: Call) -> None:
        self.call = call
        self._peer = peer
        self._attempt = 0
        self.headers = {"Accept": call.accept, "Authorization": f"Bearer {peer.token}"}
        if call.changes:
            # The same key on each attempt: what was done already is not done again.
            self.headers["Idempotency-Key"] = random_id("key")
        if call.body is not None or call.file is not None:
            self.headers["Content-Type"] = call.content_type
        if call.file is not None:
            self.headers["Content-Length"] = str(call.file.stat().st_size)

    def after_failure(self, cause: httpx.TransportError) -> float:
        """Return the pause before the next attempt, or raise what went wrong."""
        error = self.failure(cause)
        # Nobody listens, or the answer is late: saying so beats asking again.
        hopeless = isinstance(cause, httpx.ConnectError | httpx.TimeoutException)
        delay_s = None if hopeless else retry_delay_s(self.call, self._attempt, status=None)
        if delay_s is None:
            raise error from cause
        self._attempt += 1
        return delay_s

    def after_refusal(self, status: int, body: bytes, retry_after_header: str | None) -> float:
        """Return the pause before the next attempt, or raise what the answer says."""
        error = error_from_answer(status, body, retry_after(retry_after_header))
        delay_s = retry_delay_s(
            self.call, self._attempt, status=status, retry_after_s=error.retry_after_s
        )
        if delay_s is None:
            raise error
        self._attempt += 1
        return delay_s

    def failure(self, cause: httpx.TransportError) -> TramontaneError:
        """Return the error for an exchange without an answer."""
        address = self._peer.address
        if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
            return Unavailable(f"no platform answers at {address}: start one with `tram up`")
        if isinstance(cause, httpx.TimeoutException):
            return TimedOut(
                f"{address} did not answer {self.call.method} {self.call.path} in time: "
                "see `tram status`"
            )
        return Unavailable(f"the connection to {address} broke ({cause})")

    def refusal(self, status: int, body: bytes) -> TramontaneError:
        """Return the error that an answer of status 400 or more stands for."""
        return error_from_answer(status, body)

    def parse(self, body: bytes, result: type[T]) -> T:
        """Return the answer as a value of ``result``."""
        try:
            return _adapter(result).validate_json(b"null" if result is NoneType else body)
        except ValidationError as error:
            raise Unavailable(
                f"{self._peer.address} gave an answer to {self.call.method} {self.call.path} "
                f"that this client does not understand ({error.errors()[0]['msg']}): "
                "check the address, or update the client"
            ) from error


@cache
def _adapter(result: Any) -> TypeAdapter[Any]:
    return TypeAdapter(result)
