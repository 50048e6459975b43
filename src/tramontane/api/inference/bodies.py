"""Reads JSON bodies into models of them, or says which field is wrong."""

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from tramontane.api.inference.errors import Refused
from tramontane.base.errors import InvalidRequest
from tramontane.base.sizes import format_bytes

BODY_BYTES_MAX = 32 * 1024**2

Body = TypeVar("Body", bound=BaseModel)


class StrictBody(BaseModel):
    """A body in which an unknown field is a mistake, not a wish that nobody sees."""

    model_config = ConfigDict(extra="forbid", strict=True)


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Return the body; raises ``InvalidRequest`` naming the first field that is wrong."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise Refused(
                f"the body is larger than {format_bytes(BODY_BYTES_MAX)}",
                code="body_too_large",
                status=413,
            )
    try:
        # In a thread: a body of megabytes would hold up everybody else.
        return await asyncio.to_thread(kind.model_validate_json, bytes(body))
    except ValidationError as error:
        raise _describe(error) from None


def _describe(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such field"
    elif first["type"] == "missing":
        message = "is required"
    return InvalidRequest(f"{path}: {message}" if path else message, path=path or None)
