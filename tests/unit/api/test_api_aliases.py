"""Aliases over the API: what may be asked, what is answered, and what names may not share."""

import pytest
from api_world import MODEL, World

from tramontane.domain.token import Scope

SERVICES = "/api/v1/projects/shop/services"
ALIAS = "/api/v1/projects/shop/aliases/assistant"


async def deploy(client, *names: str) -> None:
    for name in names:
        answer = await client.put(f"{SERVICES}/{name}", json=MODEL)
        assert answer.status_code == 202, answer.text


def to(*shares: tuple[str, int], **more: object) -> dict[str, object]:
    return {"targets": [{"service": name, "percent": part} for name, part in shares], **more}


async def test_put_get_list_delete(world: World) -> None:
    async with world.client() as client:
        await deploy(client, "small", "large")
        body = to(
            ("small", 90),
            ("large", 10),
            canaries=[{"header": "X-Canary", "value": "yes", "service": "large"}],
            fallbacks=["small"],
            first_token_s=20,
            between_tokens_s=30,
        )
        made = await client.put(ALIAS, json=body)
        assert made.status_code == 200, made.text
        assert made.headers["etag"] == '"1"'
        assert made.json()["canaries"][0]["header"] == "x-canary"
        assert made.json()["missing"] == []
        again = await client.put(ALIAS, json=body)
        assert again.json() == made.json()
        assert (await client.get(ALIAS)).json() == made.json()
        assert (await client.get("/api/v1/aliases?project=shop")).json() == [made.json()]
        changed = await client.put(ALIAS, json=to(("small", 100)))
        assert changed.json()["generation"] == 2
        assert world.changed == ["shop"] * 3
        await client.delete(f"{SERVICES}/small")
        assert (await client.get(ALIAS)).json()["missing"] == ["small"]
        assert (await client.delete(ALIAS)).status_code == 204
        assert (await client.get(ALIAS)).status_code == 404
        assert (await client.delete(ALIAS)).status_code == 404


async def test_a_change_of_something_else_is_refused(world: World) -> None:
    async with world.client() as client:
        await deploy(client, "small", "large")
        await client.put(ALIAS, json=to(("small", 100)))
        await client.put(ALIAS, json=to(("large", 100)))
        for late in (
            await client.put(ALIAS, json=to(("small", 100)), headers={"If-Match": '"1"'}),
            await client.delete(ALIAS, headers={"If-Match": '"1"'}),
        ):
            assert (late.status_code, late.json()["code"]) == (409, "conflict")
        assert (await client.get(ALIAS)).json()["targets"][0]["service"] == "large"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (to(("small", 50)), "add up to 100, got 50"),
        (to(("small", 50), ("small", 50)), "each service once"),
        (to(("small", 100), fallbacks=["large", "large"]), "each service once"),
        (to(("smal", 100)), "did you mean small?"),
        (to(("small", 100), fallbacks=["web"]), "fallbacks.0"),
        (to(("small", 100), first_token_s=20, between_tokens_s=10), "at least first_token_s"),
        (to(), "targets"),
        (
            to(
                ("small", 100),
                canaries=[{"header": "x-tramontane-x", "value": "1", "service": "small"}],
            ),
            "reserved",
        ),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    world: World, body: dict[str, object], words: str
) -> None:
    async with world.client() as client:
        await deploy(client, "small", "large")
        answer = await client.put(ALIAS, json=body)
        assert answer.status_code == 422
        assert words in answer.text
        assert (await client.get("/api/v1/aliases")).json() == []


async def test_a_name_means_one_thing(world: World) -> None:
    async with world.client() as client:
        await deploy(client, "small")
        taken = await client.put(f"{ALIAS[:-9]}small", json=to(("small", 100)))
        assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
        await client.put(ALIAS, json=to(("small", 100)))
        refused = await client.put(f"{SERVICES}/assistant", json=MODEL)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
        assert "tram aliases delete assistant" in refused.json()["detail"]


async def test_who_may(world: World) -> None:
    async with world.client() as admin:
        await deploy(admin, "small")
        await admin.put(ALIAS, json=to(("small", 100)))
    async with world.client(Scope.READ, "shop") as reader:
        assert (await reader.get(ALIAS)).status_code == 200
        assert (await reader.put(ALIAS, json=to(("small", 100)))).status_code == 403
    async with world.client(Scope.DEPLOY, "other") as stranger:
        assert (await stranger.get(ALIAS)).status_code == 404
        assert (await stranger.get("/api/v1/aliases")).json() == []
        assert (await stranger.put(ALIAS, json=to(("small", 100)))).status_code == 404
    async with world.client() as admin:
        await admin.delete(f"{SERVICES}/small")
        assert (await admin.get(ALIAS)).json()["missing"] == ["small"]
