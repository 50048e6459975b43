"""Who may do what: every route has a permission, and every permission holds."""

import base64
import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_world import MODEL, SERVICE, World
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from fastapi.routing import iter_route_contexts

from tramontane.api.access import Permission
from tramontane.api.tokens import load_signing_key
from tramontane.base.errors import Unauthenticated
from tramontane.domain.definition import Definition, DirectorySource, ServiceKind
from tramontane.domain.ids import InstanceId
from tramontane.domain.token import Scope

PUBLIC = {"/healthz", "/docs", "/api/v1/openapi.json"}
SERVICE_PATHS = {
    "project": "shop",
    "name": "chat",
    "number": "1",
    "token_id": "tok_1",
    "batch_id": "batch_1",
}


def permissions(world: World) -> dict[tuple[str, str], Scope | None]:
    """Every operation and what it asks for."""
    found: dict[tuple[str, str], Scope | None] = {}
    for route in api_routes(world):
        calls = [each.call for each in route.dependant.dependencies]
        scopes = [each.scope for each in calls if isinstance(each, Permission)]
        assert len(scopes) <= 1
        for method in route.methods:
            found[method, route.path] = scopes[0] if scopes else None
    return found


def api_routes(world: World) -> list[Any]:
    return list(iter_route_contexts(world.app.routes))


def test_every_route_declares_its_permission(world: World) -> None:
    found = permissions(world)
    assert len(found) > 30
    assert {path for (_, path), scope in found.items() if scope is None} == PUBLIC
    # Nothing that changes anything is open to those who may only read.
    reads = {method for (method, _), scope in found.items() if scope is Scope.READ}
    assert reads <= {"GET", "HEAD"}


@pytest.mark.parametrize("scope", [None, *Scope])
async def test_matrix(world: World, scope: Scope | None) -> None:
    """Each operation answers 401, 403 or something else exactly as its permission says."""
    async with world.client(scope) as client:
        for (method, path), needed in permissions(world).items():
            if needed is None or path.endswith("/watch"):
                continue
            digest = f"sha256:{'0' * 64}"
            target = path.format(**SERVICE_PATHS, digest=digest)
            answer = await client.request(method, target, json={} if method == "POST" else None)
            if scope is None:
                assert answer.status_code == 401, (method, path)
            else:
                assert (answer.status_code == 403) == (scope < needed), (method, path)


async def test_bound_token_knows_no_other_project(world: World) -> None:
    async with world.client() as admin:
        await admin.put(SERVICE, json=MODEL)
        await admin.put("/api/v1/projects/other/services/two", json=MODEL)
    async with world.client(Scope.ADMIN, "other") as bound:
        for method, path in (
            ("GET", SERVICE),
            ("GET", "/api/v1/projects/shop"),
            ("DELETE", SERVICE),
            ("GET", f"{SERVICE}/why"),
            ("GET", "/api/v1/services?project=shop"),
            ("GET", "/api/v1/watch?project=shop"),
            ("POST", f"{SERVICE}/pause"),
        ):
            hidden = await bound.request(method, path)
            nothing = await bound.request(method, path.replace("shop", "nope"))
            assert (hidden.status_code, nothing.status_code) == (404, 404), path
            assert hidden.text == nothing.text.replace("nope", "shop")
        names = [each["name"] for each in (await bound.get("/api/v1/services")).json()]
        assert names == ["two"]
        assert [p["name"] for p in (await bound.get("/api/v1/projects")).json()] == ["other"]
        assert (await bound.get("/api/v1/status")).json()["services"] == {"pending": 1}
        assert [m["name"] for m in (await bound.get("/api/v1/models")).json()] == ["two"]
        # Its tokens: of its own project only, for its own project only.
        assert {t["project"] for t in (await bound.get("/api/v1/tokens")).json()} == {"other"}
        for project in (None, "shop"):
            more = await bound.post("/api/v1/tokens", json={"project": project, "scope": "admin"})
            assert more.status_code == 403
        made = await bound.post("/api/v1/tokens", json={"project": "other", "scope": "read"})
        assert made.status_code == 201
        assert (await bound.delete("/api/v1/tokens/tok_0000000000000001")).status_code == 404


async def test_no_answer_gives_the_value_of_a_variable(world: World) -> None:
    """Names are shown, values never, whoever asks: an answer ends in terminals and CI logs."""
    secret = MODEL | {"environment": {"PASSWORD": "hunter2", "EMPTY": ""}}
    names = {"PASSWORD": None, "EMPTY": None}
    async with world.client(Scope.DEPLOY, "shop") as deployer:
        key = {"Idempotency-Key": "once"}
        put = await deployer.put(SERVICE, json=secret, headers=key)
        repeated = await deployer.put(SERVICE, json=secret, headers=key)
        assert put.json()["definition"]["environment"] == names
        assert repeated.json() == put.json()
        await deployer.put(SERVICE, json=secret | {"scaling": {"max": 7}})
        back = await deployer.post(f"{SERVICE}/rollback", json={"deployment": 1})
        answers = [put.text, back.text]
        # What was read cannot be sent back by accident, with nothing in place of the values.
        again = await deployer.put(SERVICE, json=put.json()["definition"])
        assert again.status_code == 422
        assert again.json()["path"].startswith("definition.environment."), again.text
    for scope in (Scope.READ, Scope.DEPLOY, Scope.ADMIN):
        async with world.client(scope) as reader:
            deployment = (await reader.get(f"{SERVICE}/deployments/1")).json()
            assert deployment["definition"]["environment"] == names
            for (method, path), needed in permissions(world).items():
                if method == "GET" and needed is not None and not path.endswith("/watch"):
                    answers.append((await reader.get(path.format(**SERVICE_PATHS))).text)
    assert len(answers) > 30
    assert not [answer for answer in answers if "hunter2" in answer]


async def test_life_of_a_token(world: World, client: httpx.AsyncClient) -> None:
    body = {"name": "ci", "project": "shop", "scope": "deploy", "expires_in_s": 100}
    key = {"Idempotency-Key": "t"}
    created = await client.post("/api/v1/tokens", json=body, headers=key)
    assert created.status_code == 201
    text, token_id = created.json()["token"], created.json()["id"]
    assert text.startswith("tram_")
    assert (await client.post("/api/v1/tokens", json=body, headers=key)).status_code == 409
    listed = await client.get("/api/v1/tokens")
    assert text not in listed.text
    bearer = {"Authorization": f"bearer {text}"}
    assert (await client.put(SERVICE, json=MODEL, headers=bearer)).status_code == 202
    listed = {each["id"]: each for each in (await client.get("/api/v1/tokens")).json()}
    assert listed[token_id]["last_used_at"] == world.clock.now()
    world.clock.advance(100)
    expired = await client.get(SERVICE, headers=bearer)
    assert (expired.status_code, "expired" in expired.json()["detail"]) == (401, True)


async def test_token_for_some_models(world: World, client: httpx.AsyncClient) -> None:
    wanted = {"project": "shop", "models": ["assistant", "org/mails:1", "assistant"]}
    made = (await client.post("/api/v1/tokens", json=wanted)).json()
    assert made["models"] == ["assistant", "org/mails:1"]
    claims = json.loads(decode(made["token"].split(".")[1]))
    assert claims["models"] == ["assistant", "org/mails:1"]
    world.mint(Scope.INFERENCE, "shop")
    listed = {each["id"]: each["models"] for each in (await client.get("/api/v1/tokens")).json()}
    assert listed.pop(made["id"]) == ["assistant", "org/mails:1"]
    assert set(listed.values()) == {None}


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"project": "shop", "scope": "deploy", "models": ["a"]}, "models"),
        ({"project": "shop", "models": []}, "models"),
        ({"project": "shop", "models": ["a b"]}, "models[0]"),
        ({"project": "shop", "models": ["a"] * 33}, "models"),
        ({"models": ["a"]}, "models"),
    ],
)
async def test_what_no_token_is_limited_to(
    world: World, client: httpx.AsyncClient, body: dict[str, object], path: str
) -> None:
    before = (await client.get("/api/v1/tokens")).json()
    answer = await client.post("/api/v1/tokens", json=body)
    assert (answer.status_code, answer.json()["path"]) == (422, path)
    assert len((await client.get("/api/v1/tokens")).json()) == len(before)


def test_key_of_an_instance_is_kept_nowhere_and_opens_no_api(world: World) -> None:
    definition = Definition(kind=ServiceKind.WEB, source=DirectorySource(digest="sha256:0"))
    world.store.record_source("sha256:0", 5, now=1.0)
    service, _ = world.store.deploy("shop", "app", definition, now=1.0, ids=world.parts.ids)
    mint = world.parts.tokens.mint_for_instance
    text = mint(service, InstanceId("ins_1"), ("assistant",), 3600)
    now = int(world.clock.now())
    assert json.loads(decode(text.split(".")[1])) == {
        "iss": world.parts.tokens.issuer,
        "sub": "shop/app",
        "jti": service.id,
        "instance": "ins_1",
        "project": "shop",
        "scope": "inference",
        "models": ["assistant"],
        "service": service.id,
        "iat": now,
        "exp": now + 3600,
    }
    lasting = mint(service, InstanceId("ins_1"), ("assistant",), None)
    assert "exp" not in json.loads(decode(lasting.split(".")[1]))
    assert world.store.list_tokens() == []
    with pytest.raises(Unauthenticated):
        world.parts.tokens.authenticate(text)


async def test_revoked_token_opens_nothing(world: World, client: httpx.AsyncClient) -> None:
    text = world.mint(Scope.READ)
    token_id = world.parts.tokens.authenticate(text).id
    assert (await client.delete(f"/api/v1/tokens/{token_id}")).status_code == 204
    assert world.revoked == [token_id]
    refused = await client.get("/api/v1/cells", headers={"Authorization": f"Bearer {text}"})
    assert (refused.status_code, "revoked" in refused.json()["detail"]) == (401, True)
    assert (await client.delete("/api/v1/tokens/tok_9")).status_code == 404


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer tram_x.y.z", "Bearer é"]
)
async def test_no_token_no_answer(world: World, header: str) -> None:
    async with world.client(scope=None) as nobody:
        headers = {b"Authorization": header.encode()}
        assert (await nobody.get("/api/v1/cells", headers=headers)).status_code == 401
        assert (await nobody.get("/api/v1/nothing", headers=headers)).status_code == 401
        assert (await nobody.get("/healthz")).json() == {"status": "ok"}


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_token_is_verified_without_the_platform(world: World) -> None:
    text = world.mint(Scope.INFERENCE, "shop", expires_in_s=60)
    header, claims, signature = text.removeprefix("tram_").split(".")
    jwk = json.loads(world.parts.tokens.public_jwk())
    public = Ed25519PublicKey.from_public_bytes(decode(jwk["x"]))
    public.verify(decode(signature), f"{header}.{claims}".encode())
    assert json.loads(decode(header)) == {"alg": "EdDSA", "typ": "JWT", "kid": jwk["kid"]}
    now = int(world.clock.now())
    assert json.loads(decode(claims)) == {
        "iss": world.parts.tokens.issuer,
        "sub": "test",
        "jti": "tok_0000000000000001",
        "project": "shop",
        "scope": "inference",
        "iat": now,
        "exp": now + 60,
    }


def test_admin_token_and_key_are_made_once(world: World, tmp_path: Path) -> None:
    key_file, credentials = tmp_path / "signing.key", tmp_path / "credentials"
    first, second = load_signing_key(key_file), load_signing_key(key_file)
    assert first.private_bytes_raw() == second.private_bytes_raw()
    text = world.parts.tokens.ensure_admin_token(credentials)
    assert world.parts.tokens.ensure_admin_token(credentials) == text
    assert credentials.read_text().strip() == text
    for path in (key_file, credentials):
        assert path.stat().st_mode & 0o777 == 0o600
    world.store.revoke_token(world.parts.tokens.authenticate(text).id)
    assert world.parts.tokens.ensure_admin_token(credentials) != text


async def test_tokens_never_reach_the_log(
    world: World, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    created = await client.post("/api/v1/tokens", json={"scope": "read"})
    bearer = {"Authorization": f"Bearer {created.json()['token']}x"}
    await client.get("/api/v1/cells", headers=bearer)
    assert created.json()["token"] not in caplog.text


async def test_documentation_is_public_and_loads_nothing(world: World) -> None:
    async with world.client(scope=None) as nobody:
        document = (await nobody.get("/api/v1/openapi.json")).json()
        page = await nobody.get("/docs")
    assert document["openapi"].startswith("3.1")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("<!doctype", "")
    assert "/api/v1/projects/{project}/services/{name}" in page.text
    responses = document["paths"][SERVICE.replace("shop", "{project}").replace("chat", "{name}")]
    assert "application/problem+json" in responses["put"]["responses"]["4XX"]["content"]
