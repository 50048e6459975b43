"""Bad input gets a clear problem that names the field, and changes nothing."""

import json
from typing import Any

import httpx
import pytest
from api_world import MODEL, SERVICE, World

from tramontane.domain.token import Scope


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert problem["detail"]
    assert "Traceback" not in answer.text
    return problem


SOURCE = {"source": {"digest": "sha256:" + "0" * 64}}
WORKER = SOURCE | {"kind": "worker"}
FIELDS = [
    (MODEL | {"scaling": {"max": 0}}, "definition.scaling.max"),
    (MODEL | {"scaling": {"min": 9, "max": 2}}, "definition.scaling.max"),
    (MODEL | {"scaling": {"max": 1e400}}, "definition.scaling.max"),
    (MODEL | {"scaling": {"max": 10**30}}, "definition.scaling.max"),
    (MODEL | {"sclaing": {}}, "definition.sclaing"),
    (MODEL | {"kind": "thing"}, "definition.kind"),
    (MODEL | {"kind": "web"}, "definition.source"),
    (MODEL | {"kind": "worker"}, "definition.source"),
    (SOURCE | {"kind": "job"}, "definition.kind"),
    (SOURCE | {"kind": "function"}, "definition.kind"),
    (WORKER | {"scaling": {"min": 0}}, "definition.scaling.min"),
    (WORKER | {"scaling": {"min": 0, "max": 2}}, "definition.scaling.min"),
    (WORKER | {"scaling": {"idle_s": 60}}, "definition.scaling.idle_s"),
    (WORKER | {"scaling": 1}, "definition.scaling"),
    (WORKER | {"probe": {"path": "/up"}}, "definition.probe.path"),
    (WORKER | {"probe": [1]}, "definition.probe"),
    ({"kind": "web"}, "definition.source"),
    ({"kind": "model", "source": {"model": ""}}, "definition.source.model"),
    ({"kind": "web", "source": {"digest": "md5:1"}}, "definition.source.digest"),
    (MODEL | {"build": {"root": "a/../../etc"}}, "definition.build.root"),
    (MODEL | {"build": {"root": "/etc"}}, "definition.build.root"),
    (MODEL | {"policy": ["nowhere"]}, "definition.policy[0]"),
    (MODEL | {"environment": {"1A": "x"}}, "definition.environment.1A"),
    (MODEL | {"egress": [{"host": "a"}, {"host": "A B"}]}, "definition.egress[1].host"),
    ([], "definition"),
]


@pytest.mark.parametrize(("body", "path"), FIELDS, ids=[path for _, path in FIELDS])
async def test_wrong_field_is_named(client: httpx.AsyncClient, body: object, path: str) -> None:
    content = json.dumps(body).replace("Infinity", "1e400")
    answer = await client.put(
        SERVICE, content=content, headers={"Content-Type": "application/json"}
    )
    problem = check_problem(answer, 422, "invalid_request")
    assert problem["path"] == path
    assert (await client.get("/api/v1/services")).json() == []
    assert (await client.get("/api/v1/projects")).json() == []


async def test_what_is_no_id_is_told_in_words(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/api/v1/tokens/laptop")
    problem = check_problem(answer, 422, "invalid_request")
    assert problem["detail"].startswith("token_id: expected the id of a token, such as tok_")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"a": NaN}', 400),
        (b"\xff\xfe", 400),
        (b'{"kind": "\\u0000"}', 400),
        (b'{"kind": "\\ud800"}', 400),
        (b"[" * 100_000, 400),
        (b"[" * 60 + b"]" * 60, 400),
        (b'{"scaling": {"max": 1' + b"0" * 10_000 + b"}}", 400),
        (b'"' + b"x" * 3 * 1024**2 + b'"', 413),
        (b"null", 422),
        (b"", 422),
    ],
    ids=lambda value: repr(value[:12]) if isinstance(value, bytes) else str(value),
)
async def test_unreadable_body(client: httpx.AsyncClient, content: bytes, status: int) -> None:
    answer = await client.put(
        SERVICE, content=content, headers={"Content-Type": "application/json"}
    )
    check_problem(answer, status, "invalid_request")


async def test_a_body_must_be_json(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{SERVICE}/scale", data={"instances": "1"})
    check_problem(answer, 415, "invalid_request")


async def test_given_values_are_not_repeated(client: httpx.AsyncClient) -> None:
    answer = await client.put(SERVICE, json=MODEL | {"environment": {"KEY": ["hunter2"]}})
    check_problem(answer, 422, "invalid_request")
    assert answer.json()["path"] == "definition.environment.KEY"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/projects/UPPER/services/x",
        "/api/v1/projects/a%00b",
        "/api/v1/projects/%ff%fe",
        "/api/v1/projects/" + "a" * 5000,
        "/api/v1/projects/..%2f..%2fetc/services/x",
        "/api/v1/projects/p/services/x/deployments/99999999999999999999",
        "/api/v1/projects/p/services/x/deployments/-1",
        "/api/v1/sources/sha256:xyz",
        "/api/v1/services?project=%00",
    ],
)
async def test_weird_names(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_wrong_name_is_told_what_a_name_is(client: httpx.AsyncClient) -> None:
    problem = check_problem(
        await client.get("/api/v1/projects/p/services/Echo"), 422, "invalid_request"
    )
    assert problem["path"] == "name"
    assert "lower-case letters" in problem["detail"]


async def test_a_body_that_is_no_object_is_told_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/v1/projects/p/plan", json=[1])
    assert "expected an object" in check_problem(answer, 422, "invalid_request")["detail"]


async def test_unknown_paths_and_methods(client: httpx.AsyncClient) -> None:
    check_problem(await client.get("/api/v1/nothing"), 404, "not_found")
    check_problem(await client.get("/nothing"), 404, "not_found")
    check_problem(await client.get("/api/v1/services/"), 404, "not_found")
    answer = await client.patch(SERVICE, json={})
    check_problem(answer, 405, "invalid_request")
    assert "GET" in answer.headers["allow"]


async def test_a_bug_answers_without_its_insides(
    world: World, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("the password is hunter2")

    monkeypatch.setattr(world.store, "list_cells", fail)
    answer = await client.get("/api/v1/cells")
    check_problem(answer, 500, "internal")
    assert "hunter2" not in answer.text


async def test_missing_names_are_suggested(client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    answer = await client.get("/api/v1/projects/shop/services/chta")
    problem = check_problem(answer, 404, "not_found")
    assert problem["detail"] == ("no service is named chta in project shop; did you mean chat?")


async def test_too_many_instances(client: httpx.AsyncClient) -> None:
    await client.put(SERVICE, json=MODEL)
    answer = await client.post(f"{SERVICE}/scale", json={"instances": 6})
    assert check_problem(answer, 422, "invalid_request")["path"] == "instances"
    answer = await client.post(f"{SERVICE}/scale", json={"instances": "x"})
    assert check_problem(answer, 422, "invalid_request")["path"] == "instances"


async def test_large_bodies_need_a_token_first(world: World) -> None:
    async with world.client(scope=None) as nobody:
        answer = await nobody.put(SERVICE, content=b"x" * 3 * 1024**2)
        check_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
    async with world.client(Scope.READ) as reader:
        check_problem(await reader.put(SERVICE, json=MODEL), 403, "forbidden")
