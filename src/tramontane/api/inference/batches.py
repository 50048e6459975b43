"""``/v1/batches``: batches as OpenAI's clients know them."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tramontane.api.inference.bodies import StrictBody, read_body
from tramontane.api.inference.errors import Refused
from tramontane.api.inference.parts import Caller
from tramontane.api.inference.queries import read_integer
from tramontane.base.errors import InvalidRequest, NotFound
from tramontane.domain.batch import BATCH_OVER, Batch, BatchError, BatchStatus
from tramontane.domain.files import BATCH
from tramontane.plan.batches import ENDPOINTS
from tramontane.store.paging import Page

WINDOW_HOURS = 24
RESULTS_KEPT_S = 30 * 86400.0
LIST_MAX = 100

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]


class ExpiryBody(StrictBody):
    """How long results are kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=30 * 86400)]


class BatchBody(StrictBody):
    """What is asked for."""

    input_file_id: str
    endpoint: str
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiryBody | None = None


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What either API asks for."""

    endpoint: str
    input_files: tuple[str, ...]
    named: bool
    """Whether each request has to name itself, its method and its path."""
    metadata: dict[str, str]
    model: str | None = None
    window_hours: int = WINDOW_HOURS
    results_kept_s: float = RESULTS_KEPT_S


async def create_batch(request: Request, caller: Caller) -> Response:
    """Take in a batch; its requests are looked at later."""
    body = await read_body(request, BatchBody)
    check_endpoint(body.endpoint)
    expiry = body.output_expires_after
    wish = Wish(
        endpoint=body.endpoint,
        input_files=(body.input_file_id,),
        named=True,
        metadata=body.metadata or {},
        results_kept_s=RESULTS_KEPT_S if expiry is None else float(expiry.seconds),
    )
    batch = await add_batch(caller, wish, param="input_file_id")
    return JSONResponse(_describe(batch))


async def list_batches(request: Request, caller: Caller) -> Response:
    """List batches, the newest first."""
    query = request.query_params
    page = Page(
        limit=read_integer(query, "limit", default=20, low=1, high=LIST_MAX),
        after=query.get("after"),
    )
    found = await asyncio.to_thread(caller.parts.store.list_batches, caller.project, page)
    return JSONResponse(
        {
            "object": "list",
            "data": [_describe(each) for each in found.batches],
            "first_id": found.batches[0].id if found.batches else None,
            "last_id": found.batches[-1].id if found.batches else None,
            "has_more": found.more,
        }
    )


async def get_batch(request: Request, caller: Caller) -> Response:
    """Describe one batch."""
    return JSONResponse(_describe(await read_batch(request, caller)))


async def cancel_batch(request: Request, caller: Caller) -> Response:
    """Ask for the end of a batch."""
    return JSONResponse(_describe(await end_batch(request, caller)))


def check_endpoint(endpoint: str) -> None:
    """Raise ``InvalidRequest`` for a path that batches do not lead to."""
    if endpoint not in ENDPOINTS:
        raise InvalidRequest(f"endpoint must be one of {', '.join(ENDPOINTS)}", path="endpoint")


async def add_batch(caller: Caller, wish: Wish, *, param: str) -> Batch:
    """Keep a new batch; ``param`` is what the caller calls the files of its requests."""
    store = caller.parts.store
    for file_id in wish.input_files:
        try:
            file = await asyncio.to_thread(store.read_file, caller.project, file_id, now=caller.now)
        except NotFound as error:
            raise Refused(error.message, code="invalid_file", path=param) from error
        if file.purpose != BATCH:
            raise Refused(
                f"file {file_id} was uploaded for {file.purpose}; upload it with purpose {BATCH}",
                code="invalid_file",
                path=param,
            )
    batch = _make_batch(caller, wish)
    await asyncio.to_thread(store.add_batch, batch)
    caller.parts.nudge(batch.id)
    return batch


async def read_batch(request: Request, caller: Caller) -> Batch:
    """Return the batch that the path names."""
    batch_id = request.path_params["batch_id"]
    return await asyncio.to_thread(caller.parts.store.read_batch, caller.project, batch_id)


async def end_batch(request: Request, caller: Caller) -> Batch:
    """Ask for the end of the batch that the path names."""
    batch_id = request.path_params["batch_id"]
    batch = await asyncio.to_thread(
        caller.parts.store.cancel_batch, caller.project, batch_id, now=caller.now
    )
    caller.parts.nudge(batch.id)
    return batch


def find_result_files(batch: Batch) -> tuple[str | None, str | None]:
    """Return the ids of the output and the error file, once they are there."""
    over = batch.status in BATCH_OVER
    return (
        batch.output_file if over and batch.succeeded else None,
        batch.error_file if over and batch.failed else None,
    )


def _make_batch(caller: Caller, wish: Wish) -> Batch:
    ids, now = caller.parts.ids, caller.now
    return Batch(
        id=ids("batch"),
        project=caller.project,
        key_id=caller.key_id,
        endpoint=wish.endpoint,
        model=wish.model,
        named=wish.named,
        input_files=wish.input_files,
        output_file=ids("file"),
        error_file=ids("file"),
        metadata=wish.metadata,
        window_hours=wish.window_hours,
        results_kept_s=wish.results_kept_s,
        created_at=now,
        expires_at=now + wish.window_hours * 3600.0,
        moments={BatchStatus.VALIDATING: now},
    )


def _describe(batch: Batch) -> dict[str, Any]:
    output_file, error_file = find_result_files(batch)
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": _describe_errors(batch.errors),
        "input_file_id": batch.input_files[0],
        "completion_window": f"{batch.window_hours}h",
        "status": batch.status.value,
        "output_file_id": output_file,
        "error_file_id": error_file,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        **{
            f"{status}_at": None if at is None else int(at)
            for status in BatchStatus
            if status is not BatchStatus.VALIDATING
            for at in (batch.moments.get(status),)
        },
        "request_counts": {
            "total": batch.total,
            "completed": batch.succeeded,
            "failed": batch.failed,
        },
        "metadata": batch.metadata or None,
    }


def _describe_errors(errors: tuple[BatchError, ...]) -> dict[str, Any] | None:
    if not errors:
        return None
    data = [
        {"code": each.code, "message": each.message, "param": each.param, "line": each.line}
        for each in errors
    ]
    return {"object": "list", "data": data}
