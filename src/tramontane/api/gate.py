"""What every request passes before any route sees it: a valid token, then a body worth reading.

The token comes first, so that nobody without one can make the platform hold large bodies. What
comes through is at most ``BODY_MAX_BYTES`` of JSON in valid UTF-8, not absurdly deep, and free of
characters that no database or terminal should meet; archives (``/sources``) pass as a stream.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Never, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tramontane.api.problems import MalformedRequest, problem_response
from tramontane.base.errors import TramontaneError, Unauthenticated
from tramontane.domain.token import Token

PREFIX = "/api/v1"
PUBLIC = frozenset({f"{PREFIX}/openapi.json"})
METRICS = "/metrics"
"""Where Prometheus looks by itself; for the rest it is a part of the API."""
BODY_MAX_BYTES = 2 * 1024**2
DEPTH_MAX = 50


class Gate:
    """ASGI middleware; leaves the token in ``scope["state"]["token"]`` and the body beside it."""

    def __init__(self, app: ASGIApp, *, authenticate: Callable[[str], Token]) -> None:
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        state: dict[str, Any] = scope.setdefault("state", {})
        try:
            if _is_guarded(path):
                text = _bearer(scope)
                state["token"] = await asyncio.to_thread(self._authenticate, text)
            if not path.startswith(f"{PREFIX}/sources/"):
                body = await _read_body(scope, receive)
                if body:
                    _check_json(scope, body)
                state["body"] = body
                receive = _replay(body, receive)
        except TramontaneError as error:
            await problem_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_guarded(path: str) -> bool:
    return path == METRICS or (path.startswith(f"{PREFIX}/") and path not in PUBLIC)


def _header(scope: Scope, name: bytes) -> str | None:
    headers = cast("list[tuple[bytes, bytes]]", scope["headers"])
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


def _bearer(scope: Scope) -> str:
    scheme, _, text = (_header(scope, b"authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated("a token is needed: send Authorization: Bearer tram_…")
    return text.strip()


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    declared = _header(scope, b"content-length") or "0"
    if declared.isdecimal() and len(declared) < 20 and int(declared) > BODY_MAX_BYTES:
        raise _too_large()
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("the request's body ended early")
        body += message.get("body", b"")
        if len(body) > BODY_MAX_BYTES:
            raise _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _too_large() -> MalformedRequest:
    limit = f"{BODY_MAX_BYTES // 1024**2} MiB"
    return MalformedRequest(f"the request's body is larger than {limit}", status=413)


def _check_json(scope: Scope, body: bytes) -> None:
    media_type = (_header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MalformedRequest("the body must be JSON: send it as application/json", status=415)
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise MalformedRequest("the body is not valid UTF-8") from error
    except RecursionError as error:
        raise MalformedRequest("the body is nested too deeply") from error
    except ValueError as error:
        message = f"the body is not valid JSON: {error}"
        raise MalformedRequest(message) from error
    _check_values(value)


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number in JSON")


def _check_values(value: object) -> None:
    waiting: list[tuple[object, int]] = [(value, 0)]
    while waiting:
        each, depth = waiting.pop()
        if depth > DEPTH_MAX:
            raise MalformedRequest("the body is nested too deeply")
        if isinstance(each, str):
            _check_text(each)
        elif isinstance(each, dict):
            known = cast("dict[str, object]", each)
            waiting += [(part, depth + 1) for item in known.items() for part in item]
        elif isinstance(each, list):
            waiting += [(part, depth + 1) for part in cast("list[object]", each)]


def _check_text(text: str) -> None:
    if "\0" in text:
        raise MalformedRequest("the body holds a NUL character (\\u0000), which no text may")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRequest("the body holds half of a surrogate pair (\\ud800…)") from error


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
