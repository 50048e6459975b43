"""Source archives, named by their content: asked for first, uploaded only when they are new."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from tramontane.api.access import Deployer
from tramontane.base.errors import NotFound
from tramontane.store.sources import Upload
from tramontane.wire.schemas import SourceView

router = APIRouter(prefix="/sources", tags=["sources"])

Digest = Annotated[str, Path(pattern=r"^sha256:[0-9a-f]{64}$")]
CHUNK_BYTES = 1024**2
ARCHIVE = {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}


@router.head("/{digest}")
def head_source(digest: Digest, caller: Deployer) -> Response:
    """Whether this archive was uploaded; if it was, it stays for a deployment to come."""
    # In this order: once the file is marked as used, its row is not forgotten either.
    there = caller.parts.sources.mark_used(digest, caller.now)
    if not there or caller.parts.store.read_source(digest) is None:
        raise NotFound(f"there is no archive {digest}; upload it with PUT")
    return Response(status_code=200)


@router.put("/{digest}", openapi_extra={"requestBody": {"required": True, "content": ARCHIVE}})
async def put_source(digest: Digest, request: Request, caller: Deployer) -> SourceView:
    """Upload a ``.tar.gz``; its content must be what its name says."""
    sources, store = caller.parts.sources, caller.parts.store
    # Held until there is a row: until then it looks like what a killed upload left.
    with sources.hold(digest), sources.begin(digest) as upload:
        await _receive(request, upload)
        await asyncio.to_thread(upload.finish)
        source = await asyncio.to_thread(
            store.record_source, digest, upload.size_bytes, now=caller.now
        )
    return SourceView(digest=source.digest, size_bytes=source.size_bytes)


async def _receive(request: Request, upload: Upload) -> None:
    # Chunks come in tens of kilobytes; a thread for each would cost more than the writing.
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            await asyncio.to_thread(upload.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(upload.write, bytes(waiting))
