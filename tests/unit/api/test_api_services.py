"""The life of a service through the API."""

import hashlib
import json
from collections.abc import AsyncGenerator
from dataclasses import fields, replace
from typing import Any

import httpx
import pytest
from api_world import FACTS, MODEL, SERVICE, World

from tramontane.api.access import Caller
from tramontane.api.handlers.streams import watch_services
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import (
    WORKER_GRACE_S,
    Definition,
    ModelSource,
    ServiceKind,
)
from tramontane.domain.ids import CellId, InstanceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.model import ModelFacts
from tramontane.domain.snapshot import Changes
from tramontane.domain.token import Scope
from tramontane.wire.schemas import LogLine

ARTIFACT = Artifact(
    digest="sha256:0",
    language="gguf",
    command=("serve",),
    directory="/",
    mounts=(),
    facts=FACTS["tiny"],
)


async def test_deploy_read_change_delete(world: World, client: httpx.AsyncClient) -> None:
    made = await client.put(SERVICE, json=MODEL)
    assert made.status_code == 202, made.text
    deployment = made.json()
    assert (deployment["number"], deployment["status"], deployment["project"]) == (
        1,
        "building",
        "shop",
    )
    assert made.headers["ETag"] == '"1"'
    read = await client.get(SERVICE)
    service = read.json()
    assert read.headers["ETag"] == '"1"'
    assert service["url"] == "http://chat.shop.localhost:8080"
    assert (service["deployment"], service["generation"]) == (1, 1)
    assert world.nudged == [service["id"]]

    same = await client.put(SERVICE, json=MODEL)
    assert same.json()["number"] == 1
    assert (await client.post(f"{SERVICE}/scale", json={"instances": 2})).status_code == 202
    assert (await client.post(f"{SERVICE}/pause")).json()["generation"] == 3
    assert (await client.post(f"{SERVICE}/resume")).json()["generation"] == 4
    second = await client.put(SERVICE, json=MODEL | {"drain_s": 5})
    assert second.json()["number"] == 2
    back = await client.post(f"{SERVICE}/rollback", json={"deployment": 1})
    assert back.json()["number"] == 1, back.text
    numbers = [each["number"] for each in (await client.get(f"{SERVICE}/deployments")).json()]
    assert numbers == [2, 1]
    assert (await client.get(f"{SERVICE}/deployments/2")).json()["definition"]["drain_s"] == 5
    assert (await client.get(f"{SERVICE}/deployments/9")).status_code == 404
    reasons = [each["reason"] for each in (await client.get(f"{SERVICE}/events")).json()]
    assert reasons == ["deployed", "scaled", "paused", "resumed", "deployed", "rolled_back"]

    gone = await client.delete(SERVICE)
    assert (gone.status_code, gone.json()["status"]) == (202, "deleting")
    assert (await client.put(SERVICE, json=MODEL)).status_code == 409
    assert world.store.finish_delete(gone.json()["id"])
    assert (await client.get(SERVICE)).status_code == 404
    assert (await client.delete("/api/v1/projects/shop")).status_code == 204


async def test_lists(client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    await client.put("/api/v1/projects/other/services/two", json=MODEL)
    names = [each["name"] for each in (await client.get("/api/v1/services")).json()]
    assert names == ["two", "chat"]
    of_shop = (await client.get("/api/v1/services", params={"project": "shop"})).json()
    assert [each["name"] for each in of_shop] == ["chat"]
    models = (await client.get("/api/v1/models")).json()
    assert [each["name"] for each in models] == ["two", "chat"]
    projects = (await client.get("/api/v1/projects")).json()
    assert [(each["name"], each["services"]) for each in projects] == [("other", 1), ("shop", 1)]
    status = (await client.get("/api/v1/status")).json()
    assert status["disk"] == {
        "measured_at": 7.0,
        "artifacts_bytes": 1,
        "toolchains_bytes": 2,
        "caches_bytes": 3,
        "archives_bytes": 4,
        "logs_bytes": 5,
    }
    assert status["control_plane"]["pid"] == 42
    assert status["services"] == {"pending": 2}
    assert [each["name"] for each in status["cells"]] == ["here"]
    cell = (await client.get("/api/v1/cells/here")).json()
    assert cell["facts"][0]["value"] == "DE"
    assert (await client.get("/api/v1/cells/her")).json()["detail"].endswith("did you mean here?")


async def test_a_model_is_inspected_without_being_deployed(
    world: World, client: httpx.AsyncClient
) -> None:
    found = (await client.get("/api/v1/models/inspect", params={"reference": "tiny"})).json()
    assert (found["name"], found["format"], found["parameters"]) == ("Tiny", "gguf", 3_000_000)
    assert (found["licence"], found["tools"], found["origin_country"]) == (None, None, None)
    assert set(found) == {each.name for each in fields(ModelFacts)}
    missing = await client.get("/api/v1/models/inspect", params={"reference": "/no/such"})
    assert (missing.status_code, missing.json()["path"]) == (422, "source.model")
    assert (await client.get("/api/v1/models")).json() == []


async def test_models_show_the_facts_that_came_with_their_artifact(
    world: World, client: httpx.AsyncClient
) -> None:
    await client.put(SERVICE, json=MODEL)
    (model,) = (await client.get("/api/v1/models")).json()
    assert model["facts"] is None
    service = world.store.read_service("shop", "chat").service
    assert service.desired_deployment is not None
    world.store.record_artifact(service.desired_deployment, ARTIFACT)
    (model,) = (await client.get("/api/v1/models")).json()
    assert model["facts"]["context_length"] == 1024


async def test_the_size_of_a_model_is_planned_and_then_shown(
    world: World, client: httpx.AsyncClient
) -> None:
    wanted = {
        "chat": MODEL | {"engine": {"context_tokens": 512, "parallel": 2}},
        "large": MODEL | {"engine": {"context_tokens": 4096}},
        "gone": {"kind": "model", "source": {"model": "/gone"}},
        "web": {"source": {"digest": "sha256:" + "0" * 64}},
    }
    answer = await client.post("/api/v1/projects/shop/plan", json={"services": wanted})
    planned = {each["name"]: each for each in answer.json()["services"]}
    (candidate,) = planned["chat"]["candidates"]
    sizing = candidate["sizing"]
    assert (sizing["engine"], sizing["context_tokens"], sizing["parallel"]) == ("llama.cpp", 512, 2)
    assert sizing["needed_bytes"] == sum(each["size_bytes"] for each in sizing["parts"])
    assert {each["name"] for each in sizing["parts"]} >= {"weights", "KV cache", "engine"}
    assert not planned["large"]["placeable"]
    (candidate,) = planned["large"]["candidates"]
    assert (candidate["allowed"], candidate["sizing"]) == (True, None)
    assert "trained for 1,024" in candidate["reason"]
    assert not planned["gone"]["placeable"]
    assert planned["gone"]["problem"] == "cannot read the model /gone"
    assert planned["web"]["candidates"][0]["sizing"] is None

    await client.put(SERVICE, json=wanted["chat"])
    assert (await client.get(SERVICE)).json()["sizing"] is None, "nobody has looked at it yet"
    service = world.store.read_service("shop", "chat").service
    assert service.desired_deployment is not None
    world.store.record_artifact(service.desired_deployment, ARTIFACT)
    shown = (await client.get(SERVICE)).json()["sizing"]
    assert shown == sizing
    why = (await client.get(f"{SERVICE}/why")).json()
    assert why["candidates"][0]["sizing"] == sizing
    instance = Instance(
        id=InstanceId("ins_1"),
        service_id=service.id,
        deployment_id=service.desired_deployment,
        cell_id=CellId("cel_1"),
        created_at=1.0,
    )
    service = world.store.read_service("shop", "chat").service
    world.store.apply(Changes(instances=(instance,)), service.id, service.generation)
    assert world.store.read_memory_used() == {"cel_1": sizing["memory_bytes"]}


async def test_etag_and_if_match(client: httpx.AsyncClient) -> None:
    etag = (await client.put(SERVICE, json=MODEL)).headers["ETag"]
    scaled = await client.post(
        f"{SERVICE}/scale", json={"instances": 1}, headers={"If-Match": etag}
    )
    assert scaled.status_code == 202
    stale = await client.post(f"{SERVICE}/pause", headers={"If-Match": etag})
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    wrong = await client.post(f"{SERVICE}/pause", headers={"If-Match": "soon"})
    assert (wrong.status_code, wrong.json()["path"]) == (400, "If-Match")
    assert (await client.post(f"{SERVICE}/pause", headers={"If-Match": "*"})).status_code == 202


async def test_idempotency_key(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "abc"}
    first = await client.put(SERVICE, json=MODEL, headers=key)
    await client.put(SERVICE, json=MODEL | {"drain_s": 5})
    again = await client.put(SERVICE, json=MODEL, headers=key)
    assert again.json()["id"] == first.json()["id"]
    assert (await client.get(SERVICE)).json()["deployment"] == 2
    different = await client.put(SERVICE, json=MODEL | {"drain_s": 6}, headers=key)
    assert (different.status_code, different.json()["code"]) == (409, "conflict")
    # The key belongs to the route: elsewhere it is another one.
    assert (await client.post(f"{SERVICE}/pause", headers=key)).status_code == 202


async def test_rollback_with_one_key_goes_back_once(
    world: World, client: httpx.AsyncClient
) -> None:
    for drain_s in (1, 2, 3):
        await client.put(SERVICE, json=MODEL | {"drain_s": drain_s})
    key = {"Idempotency-Key": "back"}
    for _ in range(2):
        answer = await client.post(f"{SERVICE}/rollback", json={"deployment": 2}, headers=key)
        assert answer.json()["number"] == 2
    assert (await client.get(SERVICE)).json()["generation"] == 4


async def test_exec(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    asleep = await client.post(f"{SERVICE}/exec", json={"command": ["ls"]})
    assert asleep.status_code == 409
    service = world.store.read_service("shop", "chat").service
    assert service.desired_deployment is not None
    instance = Instance(
        id=InstanceId("ins_1"),
        service_id=service.id,
        deployment_id=service.desired_deployment,
        cell_id=CellId("cel_1"),
        created_at=1.0,
        status=InstanceStatus.HEALTHY,
        pid=77,
    )
    starting = replace(instance, id=InstanceId("ins_2"), status=InstanceStatus.STARTING)
    world.store.apply(Changes(instances=(instance, starting)), service.id, service.generation)
    key = {"Idempotency-Key": "once"}
    ran = await client.post(f"{SERVICE}/exec", json={"command": ["ls", "-l"]}, headers=key)
    assert ran.json() == {"instance": "ins_1", "exit_code": 3, "stdout": "out", "stderr": ""}
    repeated = await client.post(f"{SERVICE}/exec", json={"command": ["ls", "-l"]}, headers=key)
    assert repeated.status_code == 409
    assert world.executed == [(instance, ("ls", "-l"))]
    other = await client.post(f"{SERVICE}/exec", json={"command": ["ls"], "instance": "ins_2"})
    assert other.status_code == 409
    shown = (await client.get(f"{SERVICE}/instances")).json()
    assert [(each["id"], each["cell"], each["deployment"]) for each in shown] == [
        ("ins_1", "here", 1),
        ("ins_2", "here", 1),
    ]
    assert (await client.get(SERVICE)).json()["instances"][0]["pid"] == 77


async def upload(client: httpx.AsyncClient, content: bytes = b"\x1f\x8b") -> dict[str, str]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path, headers = f"/api/v1/sources/{digest}", {"Content-Type": "application/gzip"}
    assert (await client.put(path, content=content, headers=headers)).is_success
    return {"digest": digest}


@pytest.mark.parametrize(
    ("scaling", "between"),
    [({}, (1, 1)), ({"min": 3}, (3, 3)), ({"max": 3}, (1, 3)), ({"min": 2, "max": 4}, (2, 4))],
)
async def test_a_worker_has_no_address_and_runs_its_minimum(
    client: httpx.AsyncClient, scaling: dict[str, int], between: tuple[int, int]
) -> None:
    body = {"kind": "worker", "source": await upload(client), "scaling": scaling}
    made = await client.put(SERVICE, json=body)
    assert made.status_code == 202, made.text
    definition = made.json()["definition"]
    assert definition["probe"]["grace_s"] == WORKER_GRACE_S
    service = (await client.get(SERVICE)).json()
    assert (service["kind"], service["url"]) == ("worker", None)
    assert (service["instances_min"], service["instances_max"]) == between
    again = await client.put(SERVICE, json=definition)
    assert again.json()["number"] == 1, "what is read can be sent back"
    refused = await client.post(f"{SERVICE}/exec", json={"command": ["ls"]})
    assert "request" not in refused.json()["detail"]


async def test_a_web_service_shows_its_address_until_a_worker_serves(
    world: World, client: httpx.AsyncClient
) -> None:
    source = {"source": await upload(client)}
    await client.put(SERVICE, json=source)
    service = world.store.read_service("shop", "chat").service
    served = replace(service, serving_deployment=service.desired_deployment)
    assert world.store.apply(Changes(service=served), service.id, service.generation)
    await client.put(SERVICE, json=source | {"kind": "worker"})
    assert (await client.get(SERVICE)).json()["url"] == "http://chat.shop.localhost:8080"
    service = world.store.read_service("shop", "chat").service
    served = replace(service, serving_deployment=service.desired_deployment)
    assert world.store.apply(Changes(service=served), service.id, service.generation)
    assert (await client.get(SERVICE)).json()["url"] is None


async def test_what_was_deployed_before_its_kind_was_refused_can_be_read(
    world: World, client: httpx.AsyncClient
) -> None:
    definition = Definition(kind=ServiceKind.JOB, source=ModelSource(reference="tiny"))
    world.store.deploy("shop", "chat", definition, now=1.0, ids=world.parts.ids)
    (deployment,) = (await client.get(f"{SERVICE}/deployments")).json()
    assert deployment["definition"]["kind"] == "job"


async def test_policy_that_no_cell_satisfies_waits(client: httpx.AsyncClient) -> None:
    waiting = await client.put(SERVICE, json=MODEL | {"policy": ["country-fr"]})
    assert waiting.status_code == 202
    assert "no cell may run it" in waiting.json()["message"]
    why = (await client.get(f"{SERVICE}/why")).json()
    assert why["policy"] == ["country-fr"]
    assert [(each["cell"], each["allowed"]) for each in why["candidates"]] == [("here", False)]
    assert why["candidates"][0]["findings"][0]["verdict"] == "violated"
    assert why["events"][0]["reason"] == "deployed"
    unknown = await client.put(SERVICE, json=MODEL | {"policy": ["country-dee"]})
    assert unknown.status_code == 422
    assert unknown.json()["path"] == "definition.policy[0]"
    assert "did you mean country-" in unknown.json()["detail"]


async def test_project_policy_adds_to_the_service(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    world.nudged.clear()
    put = await client.put("/api/v1/projects/shop", json={"policy": ["country-de"]})
    assert put.json()["policy"] == ["country-de"]
    assert len(world.nudged) == 1
    assert (await client.get(SERVICE)).json()["policy"] == ["country-de"]
    wrong = await client.put("/api/v1/projects/shop", json={"policy": ["mars"]})
    assert (wrong.status_code, wrong.json()["path"]) == (422, "policy[0]")
    full = await client.delete("/api/v1/projects/shop")
    assert (full.status_code, full.json()["code"]) == (409, "conflict")


async def test_plan_changes_nothing(client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL | {"environment": {"KEY": "secret-1"}})
    wanted = {
        "chat": MODEL | {"environment": {"KEY": "secret-2"}, "scaling": {"max": 7}},
        "fresh": MODEL | {"policy": ["country-fr"]},
    }
    answer = await client.post("/api/v1/projects/shop/plan", json={"services": wanted})
    chat, fresh = answer.json()["services"]
    assert chat["action"] == "update"
    assert chat["changes"] == ["environment.KEY: changed", "scaling.max: 5 → 7"]
    assert "secret" not in answer.text
    assert (fresh["action"], fresh["placeable"]) == ("create", False)
    assert len((await client.get("/api/v1/services")).json()) == 1
    same = {"chat": MODEL | {"environment": {"KEY": "secret-1"}}}
    unchanged = await client.post("/api/v1/projects/shop/plan", json={"services": same})
    assert unchanged.json()["services"][0]["action"] == "unchanged"
    wrong = {"chat": MODEL | {"scaling": {"min": 3, "max": 2}}}
    refused = await client.post("/api/v1/projects/shop/plan", json={"services": wrong})
    assert refused.json()["path"] == "services.chat.scaling.max"


async def test_sources(world: World, client: httpx.AsyncClient) -> None:
    content = b"\x1f\x8b" + b"x" * 5000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    path = f"/api/v1/sources/{digest}"
    web = {"kind": "web", "source": {"digest": digest}}
    missing = await client.put(SERVICE, json=web)
    assert (missing.status_code, missing.json()["path"]) == (422, "definition.source.digest")
    assert (await client.head(path)).status_code == 404
    binary = {"Content-Type": "application/gzip"}
    wrong = await client.put(path, content=b"other", headers=binary)
    assert (wrong.status_code, wrong.json()["path"]) == (422, "digest")
    large = await client.put(path, content=b"x" * (1024**2 + 1), headers=binary)
    assert large.status_code == 422
    stored = await client.put(path, content=content, headers=binary)
    assert stored.json() == {"digest": digest, "size_bytes": len(content)}
    assert (await client.head(path)).status_code == 200
    assert world.parts.sources.path(digest).read_bytes() == content
    # "It is here" is a promise: garbage collection sees that somebody counts on it.
    (archive,) = world.parts.sources.list_items()
    assert archive.used_at == world.clock.now()
    assert (await client.put(SERVICE, json=web)).status_code == 202


async def test_logs(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    world.logs.lines = [
        LogLine(at=1.0, source="build", text="é"),
        LogLine(at=2, source="runtime", text="b"),
    ]
    answer = await client.get(
        f"{SERVICE}/logs", params={"source": ["build", "runtime"], "since": "0.5", "tail": "7"}
    )
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    assert [json.loads(line)["text"] for line in answer.text.splitlines()] == ["é", "b"]
    assert world.logs.asked == [
        {"sources": ("build", "runtime"), "since": 0.5, "instance": None, "tail": 7}
    ]
    assert (await client.get(f"{SERVICE}/logs", params={"source": "x"})).status_code == 422
    assert (await client.get(f"{SERVICE}/logs", params={"since": "nan"})).status_code == 422
    assert (await client.get("/api/v1/projects/p/services/x/logs")).status_code == 404


@pytest.mark.timeout(20)
async def test_watch_shows_each_change(world: World, client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    events = watch(world, "shop")
    assert (await anext(events))["generation"] == 1
    await client.post(f"{SERVICE}/pause")
    assert (await anext(events))["generation"] == 2
    await client.put("/api/v1/projects/other/services/two", json=MODEL)
    deleted = (await client.delete(SERVICE)).json()
    assert (await anext(events))["status"] == "deleting"
    world.store.finish_delete(deleted["id"])
    world.parts.feed.announce(deleted["id"])
    assert (await anext(events))["status"] == "deleted"
    await events.aclose()


async def watch(world: World, project: str) -> AsyncGenerator[dict[str, Any]]:
    """Read events from the handler itself: httpx's transport waits for the end of an answer."""
    token = world.parts.tokens.authenticate(world.mint(Scope.READ))
    response = await watch_services(Caller(parts=world.parts, token=token), project)
    async for chunk in response.body_iterator:
        for line in bytes(chunk).splitlines():  # type: ignore[arg-type]
            if line.startswith(b"data: "):
                yield json.loads(line[6:])


DIGEST = "sha256:" + "1" * 64
WEB: dict[str, object] = {"kind": "web", "source": {"digest": DIGEST}}
MISSING = "there is no model {} in project shop: it is not found until it is deployed"


async def test_models_that_are_not_there_are_said_and_allowed(
    world: World, client: httpx.AsyncClient
) -> None:
    world.store.record_source(DIGEST, 5, now=1.0)
    await client.put(SERVICE, json=MODEL)
    app = "/api/v1/projects/shop/services/app"
    plan = {"services": {"app": WEB | {"models": ["later", "new", "chat"]}, "new": MODEL}}
    answer = await client.post("/api/v1/projects/shop/plan", json=plan)
    assert [(each["models"], each["warnings"]) for each in answer.json()["services"]] == [
        (["later", "new", "chat"], [MISSING.format("later")]),
        ([], []),
    ]
    made = await client.put(app, json=WEB | {"models": ["chat", "later", "chat"]})
    assert made.status_code == 202
    assert made.json()["warnings"] == [MISSING.format("later")]
    assert made.json()["definition"]["models"] == ["chat", "later"]
    changed = {"services": {"app": WEB | {"models": ["chat"]}}}
    answer = await client.post("/api/v1/projects/shop/plan", json=changed)
    (service,) = answer.json()["services"]
    assert service["changes"] == ["models: ['chat', 'later'] → ['chat']"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (MODEL | {"models": ["chat"]}, "definition.models"),
        (
            WEB | {"models": ["chat"], "environment": {"OPENAI_BASE_URL": "https://elsewhere"}},
            "definition.environment.OPENAI_BASE_URL",
        ),
        (
            WEB | {"models": ["chat"], "environment": {"OPENAI_API_KEY": "mine"}},
            "definition.environment.OPENAI_API_KEY",
        ),
        (WEB | {"models": ["a b"]}, "definition.models[0]"),
    ],
)
async def test_what_cannot_be_bound(
    client: httpx.AsyncClient, body: dict[str, object], path: str
) -> None:
    answer = await client.put(SERVICE, json=body)
    assert (answer.status_code, answer.json()["path"]) == (422, path)
    assert (await client.get(SERVICE)).status_code == 404
