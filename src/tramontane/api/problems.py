"""Every error as RFC 9457 problem details: the one way in which this API says no.

``make_app`` installs the handlers; ``gate`` uses ``problem_response`` before any route is found.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from tramontane.base.errors import InvalidRequest, TramontaneError
from tramontane.wire.codes import HTTP_STATUSES
from tramontane.wire.schemas import PATTERNS_IN_WORDS, Problem

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
SHOWN_MAX = 5
CODE_BY_STATUS = {404: "not_found", 409: "conflict", 401: "unauthenticated", 403: "forbidden"}
MODEL_NAME = re.compile(r"^[A-Z]\w*Body$")
"""Pydantic puts the class that a union was tried as into the path; a user never wrote it."""


class MalformedRequest(InvalidRequest):
    """The request cannot even be read; ``status`` says in which way."""

    def __init__(self, message: str, *, status: int = 400, path: str | None = None) -> None:
        super().__init__(message, path=path)
        self.status = status


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error of the app a problem."""

    @app.exception_handler(TramontaneError)
    async def on_known(_: Request, error: TramontaneError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return problem_response(describe_fields(error.errors(), body_name(request)))

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        return _http_problem(request, error)

    @app.exception_handler(ClientDisconnect)
    async def on_gone(_: Request, __: ClientDisconnect) -> Response:
        return problem_response(MalformedRequest("the request's body ended early"))

    @app.exception_handler(Exception)
    async def on_bug(request: Request, _: Exception) -> Response:
        # A client gets nothing that could tell a secret. The exception goes on to the server,
        # which logs it, as it does for answers that have begun and never come here.
        log.error("%s %s failed", request.method, request.url.path)
        message = "the platform failed to answer; its log says why"
        return _respond(500, "internal", message)

    assert on_known
    assert on_invalid
    assert on_http
    assert on_gone
    assert on_bug


def problem_response(error: TramontaneError) -> Response:
    """Return the answer that says what went wrong."""
    status = HTTP_STATUSES[error.code]
    if isinstance(error, MalformedRequest):
        status = error.status
    headers: dict[str, str] = {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    elif status == 503:
        headers["Retry-After"] = "1"
    return _respond(
        status, error.code, error.message, path=error.path, log=error.detail, headers=headers
    )


def describe_fields(errors: Sequence[Mapping[str, Any]], body: str = "body") -> InvalidRequest:
    """Return one error that names the first wrong field and tells of the others."""
    told = [_tell(each, body) for each in _nearest_branch(errors)]
    first_path, first = told[0]
    others = [f"{path}: {message}" for path, message in told[1:SHOWN_MAX]]
    message = f"{first_path}: {first}" if first_path else first
    return InvalidRequest("; ".join([message, *others]), path=first_path or None)


def body_name(request: Request) -> str:
    """Return what the request's body is called in paths: what a manifest calls it."""
    deploys = request.method == "PUT" and "/services/" in request.url.path
    return "definition" if deploys else ""


def _tell(error: Mapping[str, Any], body: str) -> tuple[str, str]:
    where, *rest = [str(part) for part in error["loc"]]
    names = [part for part in rest if not MODEL_NAME.match(part) and part != "[key]"]
    if where == "body":
        names = [body, *names] if body else names
    path = "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in names).lstrip(".")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = "there is no such field"
    elif error["type"] == "missing":
        message = "is required"
    elif error["type"] in {"model_attributes_type", "model_type", "dict_type"}:
        message = "expected an object: {…}"
    elif words := PATTERNS_IN_WORDS.get(error.get("ctx", {}).get("pattern")):
        message = f"expected {words}"
    # The given value is left out on purpose: it may be a secret in the wrong place.
    return path, message[:1].lower() + message[1:]


def _nearest_branch(errors: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Keep, of a union's errors, those of the class that the input came nearest to."""
    branches: dict[str, list[Mapping[str, Any]]] = {}
    plain: list[Mapping[str, Any]] = []
    for error in errors:
        tried = next((str(part) for part in error["loc"] if MODEL_NAME.match(str(part))), None)
        (plain if tried is None else branches.setdefault(tried, [])).append(error)
    if plain or not branches:
        return plain
    return min(branches.values(), key=len)


def _http_problem(request: Request, error: HTTPException) -> Response:
    status = error.status_code
    if status == 404:
        message = f"there is no {request.url.path}; /api/v1/openapi.json lists what there is"
    elif status == 405:
        message = f"{request.method} is not possible on {request.url.path}"
    else:
        message = str(error.detail)
    default = "invalid_request" if status < 500 else "internal"
    code = CODE_BY_STATUS.get(status, default)
    return _respond(status, code, message, headers=dict(error.headers or {}))


def _respond(
    status: int,
    code: str,
    message: str,
    *,
    path: str | None = None,
    log: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        # A path can hold half a character, which no JSON can.
        detail=message.encode("utf-8", "replace").decode(),
        code=code,
        path=None if path is None else path.encode("utf-8", "replace").decode(),
        log=log,
    )
    content = problem.model_dump_json(exclude_none=True)
    return Response(content, status, headers=headers, media_type=MEDIA_TYPE)
