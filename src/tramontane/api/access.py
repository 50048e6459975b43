"""Who calls, and what that allows: the one dependency that every handler declares.

``Reader``, ``Deployer`` and ``Administrator`` in a handler's signature are its permission; a test
holds every route to having one. A project that a token is not made for does not exist for it.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Query
from starlette.requests import Request

from tramontane.api.parts import ApiParts
from tramontane.api.problems import MalformedRequest
from tramontane.base.errors import Forbidden, NotFound, Unauthenticated
from tramontane.domain.token import Scope, Token
from tramontane.store.requests import ALWAYS, Guard, RequestKey
from tramontane.wire.schemas import NAME_PATTERN

ETAG = re.compile(r'^(?:W/)?"?(\d{1,15})"?$')


@dataclass(frozen=True, kw_only=True)
class Caller:
    """A request that was let in, with what its handler works with."""

    parts: ApiParts
    token: Token
    guard: Guard = ALWAYS

    @property
    def project(self) -> str | None:
        """The one project this caller may know of; None: all."""
        return self.token.project

    @property
    def now(self) -> float:
        """Seconds since the epoch."""
        return self.parts.clock.now()

    def check_project(self, project: str | None) -> None:
        """Raise ``NotFound`` for a project that this caller may not know of."""
        if project is not None and self.project is not None and project != self.project:
            raise NotFound(f"no project is named {project}")


class Permission:
    """Lets a request in if its token has at least this scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Return the caller; raises ``Forbidden`` or ``NotFound``."""
        return self._admit(request, ALWAYS)

    def _admit(self, request: Request, guard: Guard) -> Caller:
        token: Token | None = getattr(request.state, "token", None)
        if token is None:
            raise Unauthenticated("a token is needed: send Authorization: Bearer tram_…")
        caller = Caller(parts=request.app.state.parts, token=token, guard=guard)
        caller.check_project(request.path_params.get("project"))
        if token.scope < self.scope:
            raise Forbidden(
                f"this needs a token with scope {self.scope.name.lower()}; "
                f"yours has {token.scope.name.lower()}"
            )
        return caller


class ChangePermission(Permission):
    """As ``Permission``, for requests that change something: reads their preconditions too."""

    async def __call__(
        self,
        request: Request,
        if_match: Annotated[str | None, Header(description="Generation, as in `ETag`")] = None,
        idempotency_key: Annotated[
            str | None,
            Header(min_length=1, max_length=255, description="Sent again, it happens once"),
        ] = None,
    ) -> Caller:
        """Return the caller with the guard that it asked for."""
        caller = self._admit(request, ALWAYS)
        guard = Guard(
            expected_generation=_parse_etag(if_match),
            request=_make_key(request, caller.token, idempotency_key),
        )
        return Caller(parts=caller.parts, token=caller.token, guard=guard)


def _parse_etag(text: str | None) -> int | None:
    if text is None or text.strip() == "*":
        return None
    match = ETAG.match(text.strip())
    if match is None:
        raise MalformedRequest('If-Match must be a generation, such as "7"', path="If-Match")
    return int(match[1])


def _make_key(request: Request, token: Token, key: str | None) -> RequestKey | None:
    if key is None:
        return None
    route = f"{request.method} {request.url.path}"
    body: bytes = getattr(request.state, "body", b"")
    named = "\n".join((token.id, route, key)).encode("utf-8", "replace")
    return RequestKey(
        key=hashlib.sha256(named).hexdigest(),
        fingerprint=hashlib.sha256(body).hexdigest(),
    )


Reader = Annotated[Caller, Depends(Permission(Scope.READ))]
Deployer = Annotated[Caller, Depends(ChangePermission(Scope.DEPLOY))]
Administrator = Annotated[Caller, Depends(ChangePermission(Scope.ADMIN))]

NamePath = Annotated[str, Path(pattern=NAME_PATTERN, examples=["hello"])]
ProjectQuery = Annotated[str | None, Query(pattern=NAME_PATTERN)]
ServiceQuery = Annotated[str | None, Query(pattern=NAME_PATTERN)]
MomentQuery = Annotated[float | None, Query(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since the epoch."""
