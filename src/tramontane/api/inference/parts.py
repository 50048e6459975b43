"""What this application is made of, and who calls it.

The gateway has checked the key; what it found out stands in headers that no client can set, and
nobody but the gateway reaches the socket that this is served on.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from tramontane.base.clock import Clock
from tramontane.base.errors import Forbidden, InvalidRequest, Unauthenticated
from tramontane.base.ids import IdFactory
from tramontane.store.contents import FileContents
from tramontane.store.store import Store

PROJECT_HEADER = "x-tramontane-project"
KEY_HEADER = "x-tramontane-key"
EVERY_PROJECT = "*"

PROJECT_BYTES_MAX = 10 * 1024**3

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class InferenceParts:
    """Everything the handlers use."""

    store: Store
    contents: FileContents
    clock: Clock
    ids: IdFactory
    nudge: Callable[[str], None]
    """Called after each change of a batch that a user asked for, with its id."""
    project_bytes_max: int = PROJECT_BYTES_MAX
    """What the files of one project may take up together."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, with what the handler works with."""

    parts: InferenceParts
    project: str
    key_id: str

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.parts.clock.now()


Handler = Callable[[Request, Caller], Awaitable[Response]]


def with_caller(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that lets in whom the gateway named."""

    async def endpoint(request: Request) -> Response:
        if "\0" in request.scope["path"] or "%00" in request.url.query:
            raise InvalidRequest("the URL holds a NUL character (%00), which no name may")
        return await handler(request, _read_caller(request))

    return endpoint


def _read_caller(request: Request) -> Caller:
    project = request.headers.get(PROJECT_HEADER)
    key_id = request.headers.get(KEY_HEADER)
    if not project or not key_id:
        raise Unauthenticated(
            "a valid API key is needed: send it as 'Authorization: Bearer tram_…'"
        )
    if project == EVERY_PROJECT:
        raise Forbidden(
            "this key is of no project, and files and batches belong to one; make a key with: "
            "tram tokens create --project NAME"
        )
    return Caller(parts=request.app.state.parts, project=project, key_id=key_id)
