"""Files and batches as the platform's own API shows them, and keys that are lent to batches."""

import base64
import json
from dataclasses import replace

import pytest
from api_world import World

from tramontane.base.errors import Unauthenticated
from tramontane.domain.batch import BatchError, BatchStatus
from tramontane.domain.files import ProjectFile
from tramontane.domain.token import Scope
from tramontane.testing.batches import make_batch

BATCHES = "/api/v1/projects/shop/batches"


def fill(world: World) -> None:
    file = ProjectFile(
        id="file_1",
        project="shop",
        name="in.jsonl",
        purpose="batch",
        size_bytes=10,
        lines=2,
        digest="",
        created_at=5.0,
    )
    assert world.store.add_file(file)
    world.store.add_batch(make_batch())


async def test_they_are_shown(world: World) -> None:
    fill(world)
    batch = world.store.read_batch("shop", "batch_1")
    wrong = BatchError(code="invalid_json_line", message="no JSON", line=2)
    world.store.advance_batch(batch, BatchStatus.FAILED, 7.0, errors=[wrong])
    async with world.client(Scope.READ, "shop") as client:
        files = (await client.get("/api/v1/projects/shop/files")).json()
        assert [(each["id"], each["lines"]) for each in files] == [("file_1", 2)]
        listed = (await client.get(BATCHES)).json()
        assert listed == [(await client.get(f"{BATCHES}/batch_1")).json()]
        assert listed[0]["status"] == "failed"
        assert listed[0]["errors"][0]["line"] == 2


async def test_cancelling_needs_more_than_reading(world: World) -> None:
    fill(world)
    async with world.client(Scope.READ, "shop") as client:
        assert (await client.post(f"{BATCHES}/batch_1/cancel")).status_code == 403
    async with world.client(Scope.DEPLOY, "elsewhere") as client:
        assert (await client.post(f"{BATCHES}/batch_1/cancel")).status_code == 404
    assert world.nudged_batches == []
    async with world.client(Scope.DEPLOY, "shop") as client:
        cancelled = await client.post(f"{BATCHES}/batch_1/cancel")
        assert cancelled.json()["status"] == "cancelling"
    assert world.nudged_batches == ["batch_1"]


def test_a_lent_key_says_what_the_key_says_and_opens_no_api(world: World) -> None:
    tokens = world.parts.tokens
    token, text = tokens.mint(
        "shop key", project="shop", scope=Scope.INFERENCE, models=["tiny"], expires_in_s=3600
    )
    lent = tokens.lend(token, 900.0)
    own, other = read_claims(text), read_claims(lent)
    assert other == {**own, "exp": int(world.clock.now()) + 900}
    assert other["models"] == ["tiny"]
    with pytest.raises(Unauthenticated):
        tokens.authenticate(lent)
    found = world.store.read_token(token.id)
    assert found is not None
    assert replace(found, models=None) == replace(token, models=None)
    assert world.store.read_token("tok_none") is None


def read_claims(text: str) -> dict:
    body = text.removeprefix("tram_").split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
