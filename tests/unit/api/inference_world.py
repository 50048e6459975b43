"""What answers files and batches, over a real SQLite store and a directory, asked as the gateway
asks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tramontane.api.inference.app import make_inference_app
from tramontane.api.inference.parts import InferenceParts
from tramontane.base.ids import counting_ids
from tramontane.store.contents import FileContents
from tramontane.store.store import Store
from tramontane.testing.clocks import FakeClock


@dataclass
class InferenceWorld:
    client: httpx.AsyncClient
    parts: InferenceParts
    clock: FakeClock
    nudged: list[str]

    async def upload(
        self, content: bytes = b"{}\n", fields: dict[str, str] | None = None
    ) -> httpx.Response:
        return await self.client.post(
            "/v1/files",
            files={"file": ("in.jsonl", content)},
            data={"purpose": "batch", **(fields or {})},
        )


@asynccontextmanager
async def make_inference_world(
    store: Store, directory: Path, *, project: str = "shop", project_bytes_max: int = 1000
) -> AsyncIterator[InferenceWorld]:
    clock = FakeClock()
    nudged: list[str] = []
    parts = InferenceParts(
        nudge=nudged.append,
        store=store,
        contents=FileContents(directory),
        clock=clock,
        ids=counting_ids(),
        project_bytes_max=project_bytes_max,
    )
    transport = httpx.ASGITransport(make_inference_app(parts), raise_app_exceptions=False)
    headers = {"x-tramontane-project": project, "x-tramontane-key": "tok_1"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers=headers
    ) as client:
        yield InferenceWorld(client, parts, clock, nudged)
