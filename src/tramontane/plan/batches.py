"""What becomes of a batch's requests: which are good, when one may be sent, what is tried again.

Decisions only; ``reconcile.batches`` reads, sends and writes. The API refuses by the same limits.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Never, cast

from tramontane.domain.batch import Batch, BatchError, BatchStatus

REQUESTS_MAX = 50_000
LINE_BYTES_MAX = 32 * 1024**2
"""As large as a body may be that is sent to a model at once."""
ERRORS_MAX = 100
"""So many wrong lines are told of; who has more has one mistake, many times."""
CUSTOM_ID_LENGTH_MAX = 512
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")

SHARE = 8
"""A batch fills an instance up to one part in so many of the requests that it should carry."""

ATTEMPTS_MAX = 8
ATTEMPTS_AT_FAULT_MAX = 3
"""For an engine that answers 500: it may well do so every time."""
PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
LIMITED = 429
PASSING = frozenset({LIMITED, 408, 425, 500, 502, 503, 504})
"""What may be different the next time."""

EXPIRED = BatchError(
    code="batch_expired",
    message="This request was not sent before the batch's time was over.",
)
CANCELLED = BatchError(
    code="batch_cancelled",
    message="This request was not sent, since the batch was cancelled.",
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One good line of requests. ``number`` counts from zero, through all files."""

    number: int
    custom_id: str | None
    model: str
    body: bytes


@dataclass(frozen=True, kw_only=True)
class ModelLoad:
    """A model as the gateway last saw it."""

    instances: int
    concurrency: float
    """Requests in progress that one instance should carry."""
    in_progress: int
    """Over all instances, those of batches included."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was found in a batch's files; with any error none of it is sent."""

    total: int
    errors: tuple[BatchError, ...]


class _Wrong(Exception):
    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def read_line(batch: Batch, number: int, text: bytes) -> Line | BatchError:
    """Return the request in one line of a batch's files, or what is wrong with it."""
    try:
        return _read_line(batch, number, text)
    except _Wrong as wrong:
        return BatchError(code=wrong.code, message=str(wrong), line=number + 1, param=wrong.param)


def check_lines(batch: Batch, lines: Iterable[tuple[int, bytes]]) -> Check:
    """Return how many requests a batch's lines hold and what is wrong with them."""
    total, errors, custom_ids = 0, list[BatchError](), set[str]()
    for number, text in lines:
        total += 1
        if total > REQUESTS_MAX:
            message = f"A batch holds at most {REQUESTS_MAX} requests."
            errors.append(BatchError(code="too_many_requests", message=message))
            break
        line = read_line(batch, number, text)
        if isinstance(line, Line) and line.custom_id in custom_ids:
            message = "Another line has the same custom_id."
            line = BatchError(
                code="duplicate_custom_id", message=message, line=number + 1, param="custom_id"
            )
        if isinstance(line, BatchError):
            errors.append(line)
        elif line.custom_id is not None:
            custom_ids.add(line.custom_id)
        if len(errors) >= ERRORS_MAX:
            break
    if not total:
        errors.append(BatchError(code="empty_file", message="There are no requests."))
    return Check(total=total, errors=tuple(errors))


def find_custom_id(text: bytes) -> str | None:
    """Return how a line names its request, without looking at the rest."""
    found = cast("dict[str, Any]", json.loads(text)).get("custom_id")
    return found if isinstance(found, str) else None


def plan_room(load: ModelLoad | None, ours: int) -> int:
    """Return how many requests of batches a model may have in progress now.

    ``ours`` of the requests that were in progress as the gateway saw it are of batches.

    Batches fill an instance up to a small part of what it should carry, counting everybody's
    requests: what others send takes the room away, so that a batch gives way and never makes a
    model scale out. A model at rest takes one at least. Of one that is unknown, or asleep, one
    instance is assumed.
    """
    if load is None:
        return 1
    others = max(load.in_progress - ours, 0)
    level = max(load.instances, 1) * max(int(load.concurrency / SHARE), 1)
    return max(level - others, 0)


def plan_pause(status: int | None, attempts: int, retry_after_s: float | None) -> float | None:
    """Return how long to wait before a request is sent again; None: it is not.

    ``status`` is that of the answer, None if there was none; ``attempts`` were made.
    """
    if status is not None and status not in PASSING:
        return None
    # The limit of a key makes its batches slow, and never makes them fail.
    if status != LIMITED and attempts >= (ATTEMPTS_AT_FAULT_MAX if status == 500 else ATTEMPTS_MAX):
        return None
    pause_s = PAUSE_S * 2 ** min(attempts - 1, 10)
    return min(max(pause_s, retry_after_s or 0.0), PAUSE_MAX_S)


def plan_end(batch: Batch) -> BatchStatus:
    """Return the last status of a batch of which nothing is sent any more."""
    if batch.status is BatchStatus.CANCELLING:
        return BatchStatus.CANCELLED
    return BatchStatus.EXPIRED if EXPIRED in batch.errors else BatchStatus.COMPLETED


def make_answered(batch: Batch, line: Line, status: int, body: bytes) -> bytes:
    """Return the line that a request's answer takes in a file of results."""
    response = {
        "status_code": status,
        "request_id": _request_id(batch, line.number),
        "body": _read_answer(body),
    }
    return _make_result(batch, line.number, line.custom_id, response, None)


def make_unanswered(batch: Batch, number: int, custom_id: str | None, error: BatchError) -> bytes:
    """Return the line of a request that got no answer."""
    said = {"code": error.code, "message": error.message}
    return _make_result(batch, number, custom_id, None, said)


def read_number(result: bytes) -> int:
    """Return which request a line of results belongs to."""
    found = cast("dict[str, Any]", json.loads(result))
    return int(str(found["id"]).rpartition("_")[2])


def _request_id(batch: Batch, number: int) -> str:
    return f"batch_req_{batch.id.partition('_')[2]}_{number}"


def _make_result(
    batch: Batch,
    number: int,
    custom_id: str | None,
    response: Mapping[str, Any] | None,
    error: Mapping[str, Any] | None,
) -> bytes:
    result = {
        "id": _request_id(batch, number),
        "custom_id": custom_id,
        "response": response,
        "error": error,
    }
    # In ASCII: both sides may have put halves of characters into their strings.
    return json.dumps(result, separators=(",", ":")).encode() + b"\n"


def _read_answer(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _read_line(batch: Batch, number: int, text: bytes) -> Line:
    if len(text) > LINE_BYTES_MAX:
        limit = f"{LINE_BYTES_MAX // 1024**2} MiB"
        raise _Wrong("request_too_large", f"This line is larger than {limit}.")
    found = _read_object(text)
    custom_id = found.get("custom_id")
    if custom_id is None and batch.named:
        raise _missing("custom_id")
    if custom_id is not None:
        _check_custom_id(custom_id)
    _check_same(found, "method", "POST", "invalid_method", required=batch.named)
    _check_same(found, "url", batch.endpoint, "invalid_url", required=batch.named)
    body = found.get("body")
    if body is None:
        raise _missing("body")
    if not isinstance(body, dict):
        raise _Wrong("invalid_type", "The body must be a JSON object.", "body")
    values = cast("dict[str, Any]", body)
    if values.get("stream"):
        raise _Wrong("unsupported_parameter", "A batch cannot stream.", "body.stream")
    model = values.setdefault("model", batch.model)
    if model is None:
        raise _missing("body.model")
    if not isinstance(model, str):
        raise _Wrong("invalid_type", "The model must be a string.", "body.model")
    return Line(number=number, custom_id=custom_id, model=model, body=json.dumps(values).encode())


def _read_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _Wrong("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(found, dict):
        raise _Wrong("invalid_json_line", "This line is not a JSON object.")
    return cast("dict[str, Any]", found)


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number in JSON")


def _check_custom_id(custom_id: object) -> None:
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= CUSTOM_ID_LENGTH_MAX:
        raise _Wrong(
            "invalid_custom_id",
            f"The custom_id must be a string of 1 to {CUSTOM_ID_LENGTH_MAX} characters.",
            "custom_id",
        )


def _check_same(
    found: Mapping[str, Any], name: str, expected: str, code: str, *, required: bool
) -> None:
    value = found.get(name)
    if value is None and not required:
        return
    if value is None:
        raise _missing(name)
    if value != expected:
        raise _Wrong(code, f"The {name} must be {expected}, as of the whole batch.", name)


def _missing(name: str) -> _Wrong:
    return _Wrong("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
