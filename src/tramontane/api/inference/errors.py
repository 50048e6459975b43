"""Every error in the shape that the clients of a path expect: OpenAI's, or under its own Mistral's.

Files are of both: they have OpenAI's, which Mistral's clients show as they show any text.
"""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from tramontane.base.errors import InvalidRequest, TramontaneError
from tramontane.wire.codes import HTTP_STATUSES

log = logging.getLogger(__name__)

MISTRAL_PREFIX = "/v1/batch/"
CODES = {404: "not_found", 405: "method_not_allowed"}


class Refused(InvalidRequest):
    """What one of the two APIs refuses under a code and a status of its own."""

    def __init__(
        self, message: str, *, code: str, status: int = 400, path: str | None = None
    ) -> None:
        super().__init__(message, path=path)
        self.code = code
        self.status = status


def install_error_handlers(app: Starlette) -> None:
    """Make every error of the app one of these."""

    async def on_known(request: Request, error: Exception) -> Response:
        assert isinstance(error, TramontaneError)
        status = error.status if isinstance(error, Refused) else HTTP_STATUSES[error.code]
        if type(error) is InvalidRequest and not _is_mistral(request):
            status = 400
        return _respond(request, status, error.code, error.message, error.path)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path} is not possible here"
        code = CODES.get(error.status_code, "invalid_request")
        return _respond(request, error.status_code, code, message, headers=error.headers)

    async def on_gone(request: Request, _: Exception) -> Response:
        return _respond(request, 400, "invalid_request", "the request's body ended early")

    async def on_bug(request: Request, _: Exception) -> Response:
        # The exception goes on to the server, which logs it; a client learns nothing of it.
        log.error("%s %s failed", request.method, request.url.path)
        return _respond(request, 500, "internal", "the platform failed to answer; its log says why")

    app.add_exception_handler(TramontaneError, on_known)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(Exception, on_bug)


def openai_body(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """Return OpenAI's body."""
    return {"error": {"message": message, "type": _kind(status), "param": param, "code": code}}


def mistral_body(status: int, code: str, message: str, param: str | None) -> dict[str, Any]:
    """Return Mistral's body."""
    return {
        "object": "error",
        "message": message,
        "type": _kind(status),
        "param": param,
        "code": code,
        "raw_status_code": status,
    }


def _kind(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"


def _is_mistral(request: Request) -> bool:
    return request.url.path.startswith(MISTRAL_PREFIX)


def _respond(
    request: Request,
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    make_body = mistral_body if _is_mistral(request) else openai_body
    # A path can hold half a character, which no JSON can.
    text = message.encode("utf-8", "replace").decode()
    return JSONResponse(make_body(status, code, text, param), status, headers=headers)
