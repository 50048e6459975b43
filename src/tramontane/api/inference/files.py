"""``/v1/files``: one path and one answer for OpenAI's clients and Mistral's.

Each finds in a file's description what its own API gives and passes over the rest.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from tramontane.api.inference.errors import Refused
from tramontane.api.inference.forms import FIELDS_BYTES_MAX, Form, receive_form
from tramontane.api.inference.parts import Caller
from tramontane.api.inference.queries import read_choice, read_integer, refuse
from tramontane.base.errors import InvalidRequest, NotFound
from tramontane.base.sizes import format_bytes
from tramontane.domain.files import BATCH, BATCH_OUTPUT, ProjectFile
from tramontane.store.contents import Incoming
from tramontane.store.paging import Page

FILE_BYTES_MAX = 512 * 1024**2
BATCH_BYTES_MAX = 200 * 1024**2
NAME_LENGTH_MAX = 512
PURPOSES = frozenset({BATCH, "assistants", "evals", "fine-tune", "ocr", "user_data", "vision"})
KEPT_S = 30 * 86400
"""How long files of batches stay, as at OpenAI; others stay until they are deleted."""
EXPIRY_MIN_S = 3600
LIST_MAX = 10_000
PAGE_MAX = 1000
MISTRAL_FILTERS = ("sample_type", "source", "search", "mimetypes")


async def create_file(request: Request, caller: Caller) -> Response:
    """Take in a file while it arrives."""
    parts = caller.parts
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > FILE_BYTES_MAX + FIELDS_BYTES_MAX:
        raise _too_large(FILE_BYTES_MAX)
    file_id = parts.ids("file")
    too_large = _too_large(FILE_BYTES_MAX)
    with parts.contents.begin(file_id, bytes_max=FILE_BYTES_MAX, too_large=too_large) as incoming:
        form = await receive_form(request, incoming.write)
        file = _make_file(file_id, form, incoming, caller)
        await asyncio.to_thread(incoming.finish)
    await add_file(caller, file)
    return JSONResponse(describe_file(file))


async def add_file(caller: Caller, file: ProjectFile) -> None:
    """Note a file whose content is in its place, or remove that if the project has no room."""
    parts = caller.parts
    added = await asyncio.to_thread(
        parts.store.add_file, file, project_bytes_max=parts.project_bytes_max
    )
    if not added:
        await asyncio.to_thread(parts.contents.remove, file.id)
        raise Refused(
            f"the files of project {caller.project} may take up "
            f"{format_bytes(parts.project_bytes_max)} together; delete some",
            code="quota_exceeded",
            status=403,
        )


async def list_files(request: Request, caller: Caller) -> Response:
    """List files page by page: behind an id as OpenAI does, or by number as Mistral does."""
    query = request.query_params
    refuse(query, MISTRAL_FILTERS)
    by_number = "page" in query or "page_size" in query
    limit = (
        read_integer(query, "page_size", default=100, low=1, high=PAGE_MAX)
        if by_number
        else read_integer(query, "limit", default=LIST_MAX, low=1, high=LIST_MAX)
    )
    number = read_integer(query, "page", default=0, low=0, high=10**6)
    page = Page(
        limit=limit,
        after=query.get("after"),
        offset=number * limit,
        newest_first=read_choice(query, "order", ("desc", "asc")) == "desc",
    )
    found = await asyncio.to_thread(
        caller.parts.store.list_files,
        caller.project,
        page,
        now=caller.now,
        purpose=query.get("purpose"),
    )
    return JSONResponse(
        {
            "object": "list",
            "data": [describe_file(each) for each in found.files],
            "first_id": found.files[0].id if found.files else None,
            "last_id": found.files[-1].id if found.files else None,
            "has_more": found.more,
            "total": found.total,
        }
    )


async def get_file(request: Request, caller: Caller) -> Response:
    """Describe one file."""
    return JSONResponse({**describe_file(await _read(request, caller)), "deleted": False})


async def get_content(request: Request, caller: Caller) -> Response:
    """Send a file's content."""
    file = await _read(request, caller)
    path = caller.parts.contents.path(file.id)
    if not await asyncio.to_thread(path.exists):
        raise NotFound(f"there is no file {file.id} in project {caller.project}")
    return FileResponse(path, media_type="application/octet-stream", filename=file.name)


async def get_signed_url(request: Request, caller: Caller) -> Response:
    """Say that there is none: every request for a file carries a key."""
    file = await _read(request, caller)
    raise Refused(
        f"there are no signed URLs here; get /v1/files/{file.id}/content with an API key",
        code="unsupported",
        status=501,
    )


async def delete_file(request: Request, caller: Caller) -> Response:
    """Delete a file."""
    file_id = request.path_params["file_id"]
    await asyncio.to_thread(caller.parts.store.delete_file, caller.project, file_id)
    await asyncio.to_thread(caller.parts.contents.remove, file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


def describe_file(file: ProjectFile) -> dict[str, Any]:
    """Return what both APIs tell of a file."""
    written = file.purpose == BATCH_OUTPUT
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at),
        "expires_at": None if file.expires_at is None else int(file.expires_at),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
        "num_lines": file.lines,
        "mimetype": None,
        "source": "mistral" if written else "upload",
        "sample_type": _sample_type(file),
    }


def _sample_type(file: ProjectFile) -> str:
    if file.purpose == BATCH_OUTPUT:
        return "batch_result"
    return "batch_request" if file.purpose == BATCH else "instruct"


async def _read(request: Request, caller: Caller) -> ProjectFile:
    return await asyncio.to_thread(
        caller.parts.store.read_file,
        caller.project,
        request.path_params["file_id"],
        now=caller.now,
    )


def _make_file(file_id: str, form: Form, incoming: Incoming, caller: Caller) -> ProjectFile:
    if form.file_name is None:
        raise InvalidRequest("there is no file in the form", path="file")
    purpose = form.fields.get("purpose", "")
    if purpose not in PURPOSES:
        raise InvalidRequest(
            f"purpose must be one of {', '.join(sorted(PURPOSES))}", path="purpose"
        )
    if purpose == BATCH and incoming.size_bytes > BATCH_BYTES_MAX:
        raise _too_large(BATCH_BYTES_MAX)
    if form.fields.get("visibility", "workspace") != "workspace":
        raise InvalidRequest(
            "a file is visible to its whole project; leave visibility out", path="visibility"
        )
    kept_s = _read_expiry(form.fields, default=KEPT_S if purpose == BATCH else None)
    return ProjectFile(
        id=file_id,
        project=caller.project,
        name=form.file_name[:NAME_LENGTH_MAX].replace("\0", "") or "file",
        purpose=purpose,
        size_bytes=incoming.size_bytes,
        lines=incoming.lines,
        digest=incoming.digest,
        created_at=caller.now,
        expires_at=None if kept_s is None else caller.now + kept_s,
    )


def _read_expiry(fields: Mapping[str, str], *, default: int | None) -> int | None:
    refuse(fields, ("expiry",))
    if fields.get("expires_after[anchor]", "created_at") != "created_at":
        raise InvalidRequest("the anchor must be created_at", path="expires_after[anchor]")
    name = "expires_after[seconds]"
    if name not in fields:
        return default
    return read_integer(fields, name, default=0, low=EXPIRY_MIN_S, high=KEPT_S)


def _too_large(bytes_max: int) -> Refused:
    message = f"the file is larger than {format_bytes(bytes_max)}"
    return Refused(message, code="file_too_large", status=413, path="file")
