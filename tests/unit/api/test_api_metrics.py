"""What Prometheus reads, as its own parser understands it."""

import httpx
from api_world import MODEL, SERVICE, World
from prometheus_client.parser import text_string_to_metric_families
from tests.usage_records import keep, make_record

from tramontane.domain.token import Scope
from tramontane.domain.usage import RequestEnd
from tramontane.wire.exposition import Family, expose

COUNTERS = ("_total", "_bucket", "_count")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"tramontane_{name}", frozenset(labels.items())))


async def scrape(client: httpx.AsyncClient) -> Samples:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


async def test_an_empty_platform_has_its_version(client: httpx.AsyncClient) -> None:
    assert await scrape(client) == {
        ("tramontane_build_info", frozenset({("version", "1.2.3")})): 1.0
    }


async def test_requests_of_a_model(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    keep(
        world.store,
        make_record(1, first_token_s=0.01, duration_s=100.0),
        make_record(2, model='"\\\n', first_token_s=0.02, duration_s=0.5),
        make_record(3, end=RequestEnd.REFUSED, status=400, first_token_s=None, cost=1),
    )
    samples = await scrape(client)
    chat = {"project": "shop", "model": "chat"}
    assert value(samples, "requests_total", **chat, end="finished", code="200") == 2
    assert value(samples, "requests_total", **chat, end="refused", code="400") == 1
    assert value(samples, "prompt_tokens_total", **chat) == 300
    assert value(samples, "cached_tokens_total", **chat) == 120
    assert value(samples, "completion_tokens_total", **chat) == 60
    assert value(samples, "cost_euros_total", **chat) == 0.000246913
    first = "time_to_first_token_seconds"
    below = [("0.005", 0), ("0.01", 1), ("0.02", 2), ("10", 2), ("+Inf", 2)]
    for bound, number in below:
        assert value(samples, f"{first}_bucket", **chat, le=bound) == number
    assert value(samples, f"{first}_count", **chat) == 2
    assert value(samples, f"{first}_sum", **chat) == 0.03
    assert value(samples, "request_duration_seconds_bucket", **chat, le="81.92") == 2
    assert value(samples, "request_duration_seconds_bucket", **chat, le="+Inf") == 3
    assert value(samples, "request_tokens_bucket", **chat, type="input", le="256") == 3
    assert value(samples, "request_tokens_sum", **chat, type="output") == 60
    assert value(samples, "services", project="shop", kind="model", status="pending") == 1


async def test_counters_only_grow(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    before: Samples = {}
    for number in range(1, 4):
        keep(world.store, make_record(number, duration_s=float(number)))
        after = await scrape(client)
        assert all(after[key] >= each for key, each in before.items())
        before = {key: each for key, each in after.items() if key[0].endswith(COUNTERS)}
    await client.delete(SERVICE)
    assert value(await scrape(client), "prompt_tokens_total", project="shop", model="chat") == 300


async def test_a_token_of_a_project_sees_its_project_only(world: World) -> None:
    async with world.client() as admin:
        await admin.put(SERVICE, json=MODEL)
        await admin.put("/api/v1/projects/lab/services/two", json=MODEL)
    keep(world.store, make_record(1), make_record(2, project="lab", service="two"))
    async with world.client(Scope.READ, "lab") as bound:
        labels = [dict(each) for _, each in await scrape(bound)]
        assert {each["project"] for each in labels if "project" in each} == {"lab"}
    for scope, status in ((None, 401), (Scope.INFERENCE, 403), (Scope.READ, 200)):
        async with world.client(scope) as caller:
            assert (await caller.get("/metrics")).status_code == status


def test_labels_are_quoted() -> None:
    odd = 'a "b" \\ c\nd'
    text = expose([Family(name="x", kind="gauge", help=odd, samples=[("", {"l": odd}, "1")])])
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"l": odd}
    assert family.documentation == odd
