"""What an error code means over HTTP and to a shell: the public half of ``base.errors``.

The API turns an error into a ``Problem`` with these statuses, the clients turn a ``Problem`` back
into the same error, and the command line ends with these exit codes.
"""

import json
from collections.abc import Mapping
from typing import cast

from tramontane.base import errors

ERRORS: tuple[type[errors.TramontaneError], ...] = (
    errors.InvalidRequest,
    errors.Unauthenticated,
    errors.Forbidden,
    errors.RefusedByPolicy,
    errors.NotFound,
    errors.Conflict,
    errors.BuildFailed,
    errors.SourceFailed,
    errors.Unsupported,
    errors.TimedOut,
    errors.Unavailable,
    errors.TramontaneError,
)

HTTP_STATUSES: Mapping[str, int] = {
    "invalid_request": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "refused_by_policy": 409,
    "not_found": 404,
    "conflict": 409,
    "build_failed": 422,
    "source_failed": 502,
    "unsupported": 501,
    "timed_out": 504,
    "unavailable": 503,
    "internal": 500,
}

EXIT_CODES: Mapping[str, int] = {
    "invalid_request": 2,
    "unauthenticated": 1,
    "forbidden": 1,
    "refused_by_policy": 3,
    "not_found": 4,
    "conflict": 1,
    "build_failed": 1,
    "source_failed": 1,
    "unsupported": 1,
    "timed_out": 5,
    "unavailable": 6,
    "internal": 1,
}

# For answers that are no Problem: a proxy in between, or something else on our port.
_ERROR_BY_STATUS: Mapping[int, type[errors.TramontaneError]] = {
    400: errors.InvalidRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.Conflict,
    413: errors.InvalidRequest,
    422: errors.InvalidRequest,
    429: errors.Unavailable,
    501: errors.Unsupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.TimedOut,
}
_SNIPPET_MAX = 200


def error_from_answer(
    status: int, body: bytes, retry_after_s: float | None = None
) -> errors.TramontaneError:
    """Return the error that an answer of status 400 or more stands for; never raises."""
    problem = _problem(body)
    code = problem.get("code")
    if isinstance(code, str):
        found = next((each for each in ERRORS if each.code == code), errors.TramontaneError)
        return found(
            _text(problem.get("detail")) or _text(problem.get("title")) or f"HTTP {status}",
            path=_text(problem.get("path")),
            detail=_text(problem.get("log")),
            retry_after_s=retry_after_s,
        )
    if isinstance(error := problem.get("error"), dict):
        # The form of the inference API under /v1, which follows OpenAI's.
        message = _text(cast("Mapping[str, object]", error).get("message"))
        if message:
            kind = _ERROR_BY_STATUS.get(status, errors.TramontaneError)
            return kind(message, retry_after_s=retry_after_s)
    snippet = " ".join(body[: 4 * _SNIPPET_MAX].decode("utf-8", "replace").split())[:_SNIPPET_MAX]
    message = f"the server answered with HTTP status {status}"
    if snippet:
        message += f": {snippet}"
    return _ERROR_BY_STATUS.get(status, errors.TramontaneError)(
        message, retry_after_s=retry_after_s
    )


def retry_after(value: str | None) -> float | None:
    """Return the seconds of a ``Retry-After`` header; dates are not used by this API."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86400 else None


def _problem(body: bytes) -> Mapping[str, object]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
