"""The ledger over the API: who sees what of it, added up and page by page."""

import httpx
import pytest
from api_world import MODEL, SERVICE, World
from tests.usage_records import RECORD, keep, make_record

from tramontane.domain.token import Scope
from tramontane.domain.usage import RequestEnd, Usage

USAGE = "/api/v1/usage"


@pytest.fixture
def ledger(world: World) -> World:
    key, _ = world.parts.tokens.mint("ci", project="shop", scope=Scope.INFERENCE)
    keep(
        world.store,
        make_record(1, key=key.id),
        make_record(2, key=key.id, at=2 * 86_400.0, first_token_s=None, end=RequestEnd.CUT),
        make_record(3, project="lab", model="=tiny", key="", cost=5),
    )
    return world


async def test_sums_with_their_total(ledger: World, client: httpx.AsyncClient) -> None:
    answer = (await client.get(f"{USAGE}?by=key&by=cell")).json()
    (with_key, without) = answer["sums"]
    key = with_key["group"]["key"]
    assert with_key == {
        "group": {"key": key, "cell": "here"},
        "key_name": "ci",
        "requests": 2,
        "not_finished": 1,
        "prompt_tokens": 200,
        "cached_tokens": 80,
        "completion_tokens": 40,
        "cost_eur": "0.000246912",
        "first_token_s": 0.25,
    }
    assert (without["group"]["key"], without["key_name"]) == ("", None)
    assert answer["total"] | {"group": {}, "key_name": None, "requests": 3} == answer["total"]
    assert answer["total"]["cost_eur"] == "0.000246917"
    assert answer["total"]["first_token_s"] == 0.25
    assert (answer["since"], answer["until"], answer["by"]) == (None, None, ["key", "cell"])


async def test_filters(ledger: World, client: httpx.AsyncClient) -> None:
    async def count(query: str) -> int:
        return (await client.get(f"{USAGE}?{query}")).json()["total"]["requests"]

    assert await count("") == 3
    assert await count("project=shop") == 2
    assert await count("project=shop&since=172800") == 1
    assert await count("until=172800") == 2
    assert await count("service=nobody") == 0
    for bad in ("by=colour", "since=yesterday", "key=tok", "project=_", "cursor=x"):
        path = f"{USAGE}/requests?{bad}" if bad.startswith("cursor") else f"{USAGE}?{bad}"
        refused = await client.get(path)
        assert refused.status_code == 422, bad
        assert refused.json()["path"].startswith(bad.partition("=")[0]), refused.text


async def test_pages_have_every_request_once(ledger: World, client: httpx.AsyncClient) -> None:
    found: list[dict[str, object]] = []
    query = "limit=2"
    while query:
        page = (await client.get(f"{USAGE}/requests?{query}")).json()
        assert len(page["requests"]) <= 2
        found += page["requests"]
        query = page["next"] and f"limit=2&cursor={page['next']}"
    assert [each["request_id"] for each in found] == ["req-1", "req-2", "req-3"]
    first = found[0]
    assert (first["key_name"], first["cell"], first["end"]) == ("ci", "here", "finished")
    assert first["cost_eur"] == "0.000123456"
    assert first["digest"] == RECORD.digest
    # What comes later is found from where the last page ended.
    keep(ledger.store, make_record(4, usage=Usage()))
    page = (await client.get(f"{USAGE}/requests?cursor=3")).json()
    assert [each["request_id"] for each in page["requests"]] == ["req-4"]
    assert page["next"] is None


async def test_a_token_of_a_project_sees_its_project_only(ledger: World) -> None:
    async with ledger.client() as admin:
        await admin.put(SERVICE, json=MODEL)
    async with ledger.client(Scope.READ, "lab") as bound:
        total = (await bound.get(USAGE)).json()["total"]
        assert (total["requests"], total["cost_eur"]) == (1, "0.000000005")
        records = (await bound.get(f"{USAGE}/requests")).json()["requests"]
        assert [each["project"] for each in records] == ["lab"]
        for path in (USAGE, f"{USAGE}/requests"):
            hidden = await bound.get(f"{path}?project=shop")
            nothing = await bound.get(f"{path}?project=nope")
            assert (hidden.status_code, nothing.status_code) == (404, 404)
            assert hidden.text == nothing.text.replace("nope", "shop")
    async with ledger.client(Scope.INFERENCE) as caller:
        assert (await caller.get(USAGE)).status_code == 403


async def test_names_of_keys_are_told_to_those_who_may_list_them(ledger: World) -> None:
    everywhere, _ = ledger.parts.tokens.mint("secret name", project=None, scope=Scope.INFERENCE)
    keep(ledger.store, make_record(4, project="lab", key=everywhere.id))
    async with ledger.client(Scope.READ, "lab") as bound:
        (found, _) = (await bound.get(f"{USAGE}?by=key")).json()["sums"]
        assert (found["group"]["key"], found["key_name"]) == (everywhere.id, None)
