"""Inference under ``/v1`` on every host that is no service, without Python. Pure.

A request's model is read from its body and its project from its verified key; both together choose
the route, so Envoy alone carries it to the engine. A model that a key is not for answers like one
that does not exist (docs/decisions/0016-keys-for-some-models.md). Called by ``gateway.resources``,
which keeps the encoded form of each group of routes, so that one change among a thousand encodes
one.
"""

import json
from collections.abc import Sequence

from tramontane.domain.route import AliasRoute, Refusal, ServiceRoute
from tramontane.gateway.aliases import make_alias_actions
from tramontane.gateway.bodies import BODY_METADATA, PATHS, READING
from tramontane.gateway.descriptors import Json, typed
from tramontane.gateway.files import make_file_routes
from tramontane.gateway.grants import JWT_METADATA, LISTED, RESTRICTED, make_shown, refused
from tramontane.gateway.replies import INFERENCE_HOST
from tramontane.gateway.services import (
    JWT_ROUTE,
    KEYED,
    error,
    make_action,
    make_answer,
    make_on_demand,
    make_refusal,
    match_metadata,
    of_project,
    openai_error,
)

BELOW: Json = {"path_separated_prefix": "/v1"}

OPEN: Json = {
    "typed_per_filter_config": {JWT_METADATA: typed(JWT_ROUTE, requirement_name="optional")}
}
SHOWING: Json = {"typed_per_filter_config": LISTED}

INFERENCE_HEAD: Json = {
    "name": INFERENCE_HOST,
    "domains": ["*"],
    # The chains of aliases go by it.
    "include_request_attempt_count": True,
    # Here and not on thousands of routes: Envoy reads them all anew whenever one changes.
    "typed_per_filter_config": {JWT_METADATA: KEYED},
}
"""The default virtual host, less its routes."""

NO_MODEL = openai_error(
    "model_not_found",
    "the model does not exist in this key's project, or the key is not for it; "
    "GET /v1/models lists what it is for",
)
"""One answer to both, so that a key learns nothing of models it is not for."""


def make_model_routes(route: ServiceRoute) -> list[Json]:
    """Return the routes of one model."""
    assert route.model is not None
    return [
        _make_refusal(route.model, route.project),
        _make_model_route(route),
        *_make_cards(route.model, route.project),
    ]


def make_alias_routes(route: AliasRoute) -> list[Json]:
    """Return the routes of one alias; a key that is for some models names it like a model."""
    return [
        _make_refusal(route.alias, route.project),
        *(_make_alias_route(route, *each) for each in make_alias_actions(route)),
        *_make_cards(route.alias, route.project),
    ]


def make_listing(project: str, names: Sequence[str]) -> list[Json]:
    """Return the answers to ``GET /v1/models`` for keys of one project."""
    mine, described = [of_project(project)], [describe_model(name, project) for name in names]
    return [
        {
            "match": {"path": "/v1/models", "dynamic_metadata": [*mine, RESTRICTED]},
            **make_shown((each["id"], json.dumps(each)) for each in described),
            **make_answer(200, list_models([])),
            **SHOWING,
        },
        {
            "match": {"path": "/v1/models", "dynamic_metadata": mine},
            **make_answer(200, list_models(described)),
            **SHOWING,
        },
    ]


def make_last_routes() -> list[Json]:
    """Return what is said to requests that no route before was for."""
    return [
        *(_make_no_model(path) for path in PATHS),
        {"match": {"path": "/v1/models"}, **make_answer(200, list_models([])), **SHOWING},
        {"match": {"path_separated_prefix": "/v1/models"}, **make_answer(404, NO_MODEL)},
        *make_file_routes(),
        {
            "match": BELOW,
            **make_answer(404, openai_error("not_found", "there is no such path under /v1")),
            **OPEN,
        },
        {
            "match": {"prefix": "/"},
            **make_answer(
                404,
                error(
                    "no_such_service",
                    "no service has this name; a service answers at "
                    "<service>.<project>.<domain>, models answer under /v1",
                ),
            ),
            **OPEN,
        },
    ]


def _make_model_route(route: ServiceRoute) -> Json:
    assert route.model is not None
    asked = _asked(route.model, route.project)
    return {"match": {**BELOW, "dynamic_metadata": asked}, **make_model_action(route)}


def make_model_action(route: ServiceRoute) -> Json:
    """Return what happens to a request for this model, less the match and what reads bodies."""
    action = make_action(route)
    if isinstance(route.target, Refusal):
        action |= make_refusal(route.target, openai=True)
    return {**action, "typed_per_filter_config": make_on_demand(route)}


def _make_alias_route(route: AliasRoute, more: Json, action: Json) -> Json:
    asked = [*_asked(route.alias, route.project), *more.get("dynamic_metadata", ())]
    return {"match": {**BELOW, **more, "dynamic_metadata": asked}, **action}


def _make_refusal(name: str, project: str) -> Json:
    """Return the route of requests whose key is for other models of the project."""
    asked = [*_asked(name, project), *refused(name)]
    return {
        "match": {**BELOW, "dynamic_metadata": asked},
        **make_answer(404, NO_MODEL),
    }


def _asked(name: str, project: str) -> list[Json]:
    """Return matches of requests that name a model or an alias, with a key of its project."""
    return [match_metadata(BODY_METADATA, ("model",), name), of_project(project)]


def _make_no_model(path: str) -> Json:
    """Return the route that a request has until its model is read, and after if there is none."""
    return {
        "match": {"path": path},
        **make_answer(404, NO_MODEL),
        "typed_per_filter_config": READING,
    }


def _make_cards(name: str, project: str) -> list[Json]:
    """Return the answers to ``GET /v1/models/{id}``."""
    path, mine = f"/v1/models/{name}", [of_project(project)]
    return [
        {
            "match": {"path": path, "dynamic_metadata": [*mine, *refused(name)]},
            **make_answer(404, NO_MODEL),
        },
        {
            "match": {"path": path, "dynamic_metadata": mine},
            **make_answer(200, describe_model(name, project)),
        },
    ]


def list_models(described: Sequence[Json]) -> Json:
    """Return the answer to ``GET /v1/models``."""
    return {"object": "list", "data": list(described)}


def describe_model(name: str, project: str) -> Json:
    """Return a model, or an alias, as OpenAI's clients know it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": project}
