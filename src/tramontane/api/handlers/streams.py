"""Answers that go on: the output of a service, and services as they change."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from tramontane.api.access import Caller, MomentQuery, NamePath, ProjectQuery, Reader
from tramontane.api.handlers.services import cells_by_id, view_service
from tramontane.api.parts import LogSource
from tramontane.domain.ids import ServiceId
from tramontane.wire.schemas import LogLine, ServiceView

router = APIRouter(tags=["streams"])

SOURCES: tuple[LogSource, ...] = ("build", "runtime", "egress", "platform")
Sources = Annotated[list[Literal["build", "runtime", "egress", "platform"]] | None, Query()]
Tail = Annotated[int | None, Query(ge=0, le=100_000)]
InstanceQuery = Annotated[str | None, Query(max_length=64)]

LINES = {"application/x-ndjson": {"schema": {"$ref": "#/components/schemas/LogLine"}}}
EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}


@router.get(
    "/projects/{project}/services/{name}/logs",
    response_class=StreamingResponse,
    responses={200: {"description": "One LogLine per line", "content": LINES}},
)
async def stream_logs(  # noqa: PLR0913 - one argument per query parameter
    project: NamePath,
    name: NamePath,
    caller: Reader,
    *,
    source: Sources = None,
    since: MomentQuery = None,
    follow: bool = False,
    instance: InstanceQuery = None,
    tail: Tail = None,
) -> StreamingResponse:
    """The output of a service; with ``follow`` it does not end."""
    record = await asyncio.to_thread(caller.parts.store.read_service, project, name)
    lines = caller.parts.logs.read(
        record.service.id,
        source or SOURCES,
        since=since,
        instance=instance,
        tail=tail,
        follow=follow,
    )
    return StreamingResponse(_encode(lines), media_type="application/x-ndjson")


@router.get(
    "/watch",
    response_class=StreamingResponse,
    responses={200: {"description": "A ServiceView per event", "content": EVENTS}},
)
async def watch_services(
    caller: Reader, project: ProjectQuery = None, service: ProjectQuery = None
) -> StreamingResponse:
    """Each service as it is now, then again at each change; does not end."""
    caller.check_project(project)
    events = _watch(caller, project or caller.project, service)
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)


async def _encode(lines: AsyncIterator[LogLine]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line.model_dump_json().encode() + b"\n"


async def _watch(caller: Caller, project: str | None, name: str | None) -> AsyncIterator[bytes]:
    shown: dict[ServiceId, ServiceView] = {}
    changed: Collection[ServiceId] | None = None  # everything
    with caller.parts.feed.subscribe() as subscription:
        # Subscribed before the first look, so that nothing falls between the two.
        while True:
            seen = await asyncio.to_thread(_look, caller, project, name, changed)
            for view in _note_differences(shown, seen, changed):
                yield f"event: service\ndata: {view.model_dump_json()}\n\n".encode()
            changed = await subscription.wait(caller.parts.heartbeat_s) or None
            if changed is None:
                yield b": nothing new\n\n"


def _look(
    caller: Caller, project: str | None, name: str | None, changed: Collection[ServiceId] | None
) -> dict[ServiceId, ServiceView]:
    """Return the services that are watched, or those of them that changed: there may be many."""
    store = caller.parts.store
    if changed is None:
        records = store.list_services(project)
    else:
        records = [each for id_ in changed if (each := store.read_service_by_id(id_)) is not None]
    cells = cells_by_id(caller)
    return {
        record.service.id: view_service(caller, record, cells)
        for record in records
        if project in (None, record.service.project) and name in (None, record.service.name)
    }


def _note_differences(
    shown: dict[ServiceId, ServiceView],
    seen: Mapping[ServiceId, ServiceView],
    changed: Collection[ServiceId] | None,
) -> Sequence[ServiceView]:
    """Return what differs from what was shown, and note it there."""
    looked_for = set(shown) if changed is None else set(shown).intersection(changed)
    deleted: dict[str, object] = {"status": "deleted", "reason": "deleted", "instances": []}
    gone = [shown.pop(key).model_copy(update=deleted) for key in looked_for - seen.keys()]
    fresh = [view for key, view in seen.items() if shown.get(key) != view]
    shown.update(seen)
    return [*gone, *fresh]
