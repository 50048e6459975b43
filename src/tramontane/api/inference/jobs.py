"""``/v1/batch/jobs``: the same batches as Mistral's clients know them."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tramontane.api.inference.batches import (
    Metadata,
    Wish,
    add_batch,
    check_endpoint,
    end_batch,
    find_result_files,
    read_batch,
)
from tramontane.api.inference.bodies import StrictBody, read_body
from tramontane.api.inference.files import BATCH_BYTES_MAX, KEPT_S, add_file
from tramontane.api.inference.parts import Caller
from tramontane.api.inference.queries import read_choice, read_integer, refuse
from tramontane.base.errors import InvalidRequest
from tramontane.domain.batch import BATCH_OVER, Batch, BatchStatus
from tramontane.domain.files import BATCH, ProjectFile
from tramontane.store.batches import BatchFilter
from tramontane.store.paging import Page

WINDOW_HOURS_MAX = 168
INLINE_MAX = 10_000
FILES_MAX = 100
PAGE_MAX = 1000

STATUSES: Mapping[BatchStatus, str] = {
    BatchStatus.VALIDATING: "QUEUED",
    BatchStatus.FAILED: "FAILED",
    BatchStatus.IN_PROGRESS: "RUNNING",
    BatchStatus.FINALIZING: "RUNNING",
    BatchStatus.COMPLETED: "SUCCESS",
    BatchStatus.EXPIRED: "TIMEOUT_EXCEEDED",
    BatchStatus.CANCELLING: "CANCELLATION_REQUESTED",
    BatchStatus.CANCELLED: "CANCELLED",
}


class InlineBody(StrictBody):
    """One request that is sent with the job instead of in a file."""

    custom_id: str | None = None
    body: dict[str, Any]


class JobBody(StrictBody):
    """What is asked for."""

    endpoint: str
    input_files: Annotated[list[str], Field(min_length=1, max_length=FILES_MAX)] | None = None
    requests: Annotated[list[InlineBody], Field(min_length=1, max_length=INLINE_MAX)] | None = None
    model: str | None = None
    agent_id: None = None
    metadata: Metadata | None = None
    timeout_hours: Annotated[int, Field(ge=1, le=WINDOW_HOURS_MAX)] = 24


async def create_job(request: Request, caller: Caller) -> Response:
    """Take in a job with its requests, or with files of them."""
    body = await read_body(request, JobBody)
    check_endpoint(body.endpoint)
    if (body.input_files is None) == (body.requests is None):
        raise InvalidRequest("give either input_files or requests", path="input_files")
    if body.requests is not None:
        input_files = (await _keep_requests(body.requests, caller),)
    else:
        input_files = tuple(dict.fromkeys(body.input_files or ()))
    wish = Wish(
        endpoint=body.endpoint,
        input_files=input_files,
        named=False,
        metadata=body.metadata or {},
        model=body.model,
        window_hours=body.timeout_hours,
    )
    batch = await add_batch(caller, wish, param="input_files")
    return JSONResponse(_describe(batch))


async def list_jobs(request: Request, caller: Caller) -> Response:
    """List jobs page by page."""
    query = request.query_params
    refuse(query, ("metadata", "agent_id"))
    limit = read_integer(query, "page_size", default=100, low=1, high=PAGE_MAX)
    number = read_integer(query, "page", default=0, low=0, high=10**6)
    page = Page(
        limit=limit,
        offset=number * limit,
        newest_first=read_choice(query, "order_by", ("-created", "created")) == "-created",
    )
    wanted = _read_filter(query, caller)
    found = await asyncio.to_thread(caller.parts.store.list_batches, caller.project, page, wanted)
    data = [_describe(each) for each in found.batches]
    return JSONResponse({"object": "list", "data": data, "total": found.total})


async def get_job(request: Request, caller: Caller) -> Response:
    """Describe one job, with its results if that is wanted."""
    batch = await read_batch(request, caller)
    described = _describe(batch)
    if read_choice(request.query_params, "inline", ("false", "true")) == "true":
        described["outputs"] = await asyncio.to_thread(_read_outputs, batch, caller)
    return JSONResponse(described)


async def cancel_job(request: Request, caller: Caller) -> Response:
    """Ask for the end of a job."""
    return JSONResponse(_describe(await end_batch(request, caller)))


async def delete_job(request: Request, caller: Caller) -> Response:
    """Forget a job that is over; its files stay."""
    batch_id = request.path_params["batch_id"]
    await asyncio.to_thread(caller.parts.store.delete_batch, caller.project, batch_id)
    return JSONResponse({"id": batch_id, "object": "batch", "deleted": True})


async def _keep_requests(requests: list[InlineBody], caller: Caller) -> str:
    """Keep requests as the file that they could have come in, and return its id."""
    parts = caller.parts
    file_id = parts.ids("file")

    def write() -> ProjectFile:
        too_large = InvalidRequest("the requests are too large; send them as a file")
        with parts.contents.begin(
            file_id, bytes_max=BATCH_BYTES_MAX, too_large=too_large
        ) as incoming:
            for each in requests:
                incoming.write(json.dumps(each.model_dump()).encode() + b"\n")
            incoming.finish()
            return ProjectFile(
                id=file_id,
                project=caller.project,
                name="requests.jsonl",
                purpose=BATCH,
                size_bytes=incoming.size_bytes,
                lines=incoming.lines,
                digest=incoming.digest,
                created_at=caller.now,
                expires_at=caller.now + KEPT_S,
            )

    await add_file(caller, await asyncio.to_thread(write))
    return file_id


def _read_filter(query: QueryParams, caller: Caller) -> BatchFilter:
    wanted = set(query.getlist("status"))
    unknown = wanted - set(STATUSES.values())
    if unknown:
        raise InvalidRequest(f"there is no status {min(unknown)}", path="status")
    mine = read_choice(query, "created_by_me", ("false", "true")) == "true"
    return BatchFilter(
        statuses=[each for each, word in STATUSES.items() if word in wanted] if wanted else None,
        model=query.get("model"),
        key_id=caller.key_id if mine else None,
        created_after=_read_moment(query, "created_after"),
    )


def _read_moment(query: QueryParams, name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        message = f"{name} must be a time such as 2030-01-31T12:00:00Z"
        raise InvalidRequest(message, path=name) from None


def _read_outputs(batch: Batch, caller: Caller) -> list[dict[str, Any]] | None:
    files = [each for each in find_result_files(batch) if each is not None]
    outputs: list[dict[str, Any]] = []
    for file_id in files:
        path = caller.parts.contents.path(file_id)
        if path.exists():
            with path.open("rb") as file:
                outputs += [json.loads(line) for line in file]
    return outputs if files else None


def _describe(batch: Batch) -> dict[str, Any]:
    output_file, error_file = find_result_files(batch)
    ended_at = batch.moments.get(batch.status) if batch.status in BATCH_OVER else None
    started_at = batch.moments.get(BatchStatus.IN_PROGRESS)
    counted = Counter(
        each.message if each.line is None else f"line {each.line}: {each.message}"
        for each in batch.errors
    )
    return {
        "id": batch.id,
        "object": "batch",
        "input_files": list(batch.input_files),
        "metadata": batch.metadata or None,
        "endpoint": batch.endpoint,
        "model": batch.model,
        "agent_id": None,
        "output_file": output_file,
        "error_file": error_file,
        "errors": [{"message": text, "count": count} for text, count in counted.items()],
        "outputs": None,
        "status": STATUSES[batch.status],
        "created_at": int(batch.created_at),
        "total_requests": batch.total,
        "completed_requests": batch.succeeded + batch.failed,
        "succeeded_requests": batch.succeeded,
        "failed_requests": batch.failed,
        "started_at": None if started_at is None else int(started_at),
        "completed_at": None if ended_at is None else int(ended_at),
    }
