"""A small API: a greeting, a health check, a stream of events, and a slow answer."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI(title="Hello, Python")


class Greeting(BaseModel):
    """What the front page answers."""

    message: str
    language: str = "python"


@app.get("/")
async def greet(name: Annotated[str, Query(max_length=100)] = "world") -> Greeting:
    """Greet somebody; the word comes from the environment if it is set there."""
    word = os.environ.get("GREETING", "Hello")
    return Greeting(message=f"{word}, {name}!")


@app.get("/healthz")
async def health() -> dict[str, str]:
    """Tell that the app is there."""
    return {"status": "ok"}


@app.get("/events")
async def events(
    count: Annotated[int, Query(ge=1, le=1000)] = 5,
    interval: Annotated[float, Query(ge=0, le=60)] = 0.5,
) -> StreamingResponse:
    """Send numbered server-sent events, one each ``interval`` seconds."""

    async def stream() -> AsyncIterator[str]:
        for number in range(1, count + 1):
            yield f"id: {number}\ndata: {json.dumps({'number': number})}\n\n"
            if number < count:
                await asyncio.sleep(interval)

    return StreamingResponse(stream(), media_type="text/event-stream")


@app.get("/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=3600)] = 1.0) -> dict[str, float]:
    """Answer only after some seconds, as a long request does."""
    await asyncio.sleep(seconds)
    return {"slept_s": seconds}
