"""Weights over the API: pinned when deployed, fetched ahead, seen by those they concern."""

from typing import Any

import httpx
import pytest
from api_world import SERVICE, World, make_weights

from tramontane.domain.token import Scope

HUB = {"kind": "model", "source": {"model": "hf://o/r"}}


async def deploy(client: httpx.AsyncClient, **source: str) -> Any:
    body = {**HUB, "source": {"model": "hf://o/r", **source}}
    answer = await client.put(SERVICE, json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_a_deployment_keeps_what_a_reference_meant(
    world: World, client: httpx.AsyncClient
) -> None:
    first = await deploy(client)
    assert first["definition"]["source"]["model"] == f"hf://o/r@{'1' * 40}"
    again = await deploy(client)
    assert again["number"] == first["number"], "it means the same"
    pinned = await deploy(client, model=f"hf://o/r@{'1' * 40}")
    assert pinned["number"] == first["number"]
    world.weights.main = "2" * 40
    plan = await client.post("/api/v1/projects/shop/plan", json={"services": {"chat": HUB}})
    (planned,) = plan.json()["services"]
    assert planned["action"] == "update"
    assert planned["changes"] == [f"source.model: 'hf://o/r@{'1' * 40}' → 'hf://o/r@{'2' * 40}'"]
    assert planned["placeable"], "its size is known when its weights are here, not before"
    assert planned["problem"] is None
    assert f"tram models fetch hf://o/r@{'2' * 40}" in planned["note"]
    moved = await deploy(client)
    assert moved["number"] == first["number"] + 1
    (model,) = (await client.get("/api/v1/models")).json()
    assert model["reference"] == f"hf://o/r@{'2' * 40}"


async def test_a_wrong_reference_changes_nothing(world: World, client: httpx.AsyncClient) -> None:
    answer = await client.put(SERVICE, json={**HUB, "source": {"model": "gs://bucket/m"}})
    assert answer.status_code == 422
    assert answer.json()["path"] == "source.model"
    assert "gs is no source of weights" in answer.json()["detail"]
    assert (await client.get("/api/v1/services")).json() == []


async def test_fetching_ahead_pins_first_and_is_asked_for_until_it_is_there(
    world: World, client: httpx.AsyncClient
) -> None:
    found = (await client.post("/api/v1/weights/fetch", json={"model": "hf://o/r"})).json()
    assert (found["references"], found["digest"]) == ([f"hf://o/r@{'1' * 40}"], None)
    assert (found["done_bytes"], found["size_bytes"]) == (4, 10)
    world.weights.cached = [make_weights(found["references"][0])]
    body = {"model": found["references"][0]}
    found = (await client.post("/api/v1/weights/fetch", json=body)).json()
    assert found["digest"] == "sha256:" + "d" * 64
    assert found["files"] == [{"name": "m.gguf", "size_bytes": 10, "sha256": "f" * 64}]


async def test_a_token_for_one_project_sees_what_that_project_uses(world: World) -> None:
    world.weights.cached = [
        make_weights("hf://o/r@1", used_by=("other/x", "shop/chat")),
        make_weights("hf://o/s@1", used_by=("other/x",)),
    ]
    async with world.client(Scope.READ, "shop") as bound:
        (seen,) = (await bound.get("/api/v1/weights")).json()
    assert (seen["references"], seen["used_by"]) == (["hf://o/r@1"], ["shop/chat"])
    async with world.client(Scope.READ) as all_projects:
        assert len((await all_projects.get("/api/v1/weights")).json()) == 2


@pytest.mark.parametrize("project", [None, "shop"])
async def test_removing_is_for_who_answers_for_all_projects(
    world: World, project: str | None
) -> None:
    world.weights.cached = [make_weights("hf://o/r@1")]
    place = "/api/v1/weights/sha256:" + "d" * 64
    async with world.client(Scope.ADMIN, project) as client:
        answer = await client.delete(place)
        assert answer.status_code == (200 if project is None else 403)
        assert len(world.weights.cached) == (0 if project is None else 1)


async def test_what_is_in_use_is_not_removed(world: World, client: httpx.AsyncClient) -> None:
    world.weights.cached = [make_weights("hf://o/r@1", used_by=("shop/chat",))]
    place = "/api/v1/weights/sha256:" + "d" * 64
    assert (await client.delete(place)).status_code == 409
    assert (await client.delete(place.replace("d", "e"))).status_code == 404
