"""The clients' operations against the API's own routes, and that none is forgotten."""

import inspect
import re
from pathlib import Path

import pytest
from fastapi import APIRouter

from tramontane.api.app import NOUNS
from tramontane.base.errors import InvalidRequest
from tramontane.wire import calls
from tramontane.wire.calls import PREFIX, Call
from tramontane.wire.client import AsyncClient, Client
from tramontane.wire.schemas import DefinitionBody, ModelSourceBody

BODY = DefinitionBody(kind="model", source=ModelSourceBody(model="tiny"))
SAMPLES: dict[str, object] = {
    "project": "shop",
    "name": "hello",
    "batch_id": "batch_1",
    "token_id": "tok_1",
    "reference": "/models/m.gguf",
    "digest": "sha256:" + "a" * 64,
    "file": Path("archive"),
    "definition": BODY,
    "services": {"hello": BODY},
    "targets": [("small", 100)],
    "instances": 1,
    "limits": {"streams": 2},
    "number": 3,
    "command": ["ls"],
}
# Not called by name: the health check is outside the API, the clients ask `has_source` instead.
APART = {"check_health", "check_source"}


def builders() -> dict[str, Call]:
    made: dict[str, Call] = {}
    for name, build in inspect.getmembers(calls, inspect.isfunction):
        if build.__module__ != calls.__name__ or name.startswith("_"):
            continue
        required = [
            each.name
            for each in inspect.signature(build).parameters.values()
            if each.default is inspect.Parameter.empty
        ]
        made[name] = build(**{each: SAMPLES[each] for each in required})
    return made


def routes() -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for noun in NOUNS:
        router: APIRouter = noun.router
        for route in router.routes:
            path = re.sub(r"\{[^}]*\}", "[^/]+", route.path)  # type: ignore[attr-defined]
            found |= {(method, PREFIX + path) for method in route.methods}  # type: ignore[attr-defined]
    return found


def test_each_call_meets_a_route_and_each_route_a_call() -> None:
    left = routes()
    for name, call in builders().items():
        if name == "check_health":
            continue
        met = {
            route
            for route in routes()
            if route[0] == call.method and re.fullmatch(route[1], call.path)
        }
        assert met, f"{name}: no route for {call.method} {call.path}"
        left -= met
    assert not left, "routes that no call meets"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_clients_cover_every_call(client: type) -> None:
    names = set(builders()) - APART
    assert names <= set(dir(client))
    for name in names:
        assert inspect.getdoc(getattr(client, name)), name


def test_names_cannot_leave_their_place_in_the_path() -> None:
    assert calls.get_service("shop", "a?c#d").path.endswith("/shop/services/a%3Fc%23d")
    for name in ("", ".", "..", "a/b", "../tokens"):
        with pytest.raises(InvalidRequest):
            calls.get_project(name)


def test_only_harmless_calls_are_repeatable() -> None:
    once = {name for name, call in builders().items() if not call.repeatable}
    assert once == {"create_token", "exec_command", "rollback_service"}
