"""Inference under ``/v1`` on every host that is no service, without Python. Pure.

A request's model is read from its body and its project from its verified key; both together choose
the route, so Envoy alone carries it to the engine. A model that a key is not for answers like one
that does not exist (docs/decisions/0016-keys-for-some-models.md). Called by ``gateway.resources``.
"""

import json
from collections.abc import Iterable, Sequence

from tramontane.domain.route import Refusal, ServiceRoute
from tramontane.gateway.bodies import (
    BODY_METADATA,
    JSON_FILTER,
    READING,
    TEXT_PATHS,
    make_json_requests_only,
)
from tramontane.gateway.descriptors import Json
from tramontane.gateway.files import make_file_routes
from tramontane.gateway.grants import JWT_METADATA, LISTED, RESTRICTED, make_shown, refused
from tramontane.gateway.replies import INFERENCE_HOST
from tramontane.gateway.services import (
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

PATHS = (*TEXT_PATHS, "/v1/responses", "/v1/embeddings", "/v1/rerank")

NO_MODEL = openai_error(
    "model_not_found",
    "the model does not exist in this key's project, or the key is not for it; "
    "GET /v1/models lists what it is for",
)
"""One answer to both, so that a key learns nothing of models it is not for."""


def make_inference_host(routes: Iterable[ServiceRoute]) -> Json:
    """Return the default virtual host; ``routes`` are those of models, in a stable order."""
    models = list(routes)
    return {
        "name": INFERENCE_HOST,
        "domains": ["*"],
        "routes": [
            *(_make_refusal(route, path) for route in models for path in PATHS),
            *(_make_model_route(route, path) for route in models for path in PATHS),
            *(_make_no_model(path) for path in PATHS),
            *_make_catalogue(models),
            *make_file_routes(),
            {
                "match": {"path_separated_prefix": "/v1"},
                **make_answer(404, openai_error("not_found", "there is no such path under /v1")),
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
            },
        ],
    }


def _make_model_route(route: ServiceRoute, path: str) -> Json:
    assert route.model is not None
    action = make_model_action(route)
    filters = _make_filters(path) | action.pop("typed_per_filter_config")
    return {
        "match": {
            "path": path,
            "dynamic_metadata": [
                match_metadata(BODY_METADATA, ("model",), route.model),
                of_project(route),
            ],
        },
        **action,
        "typed_per_filter_config": filters,
    }


def make_model_action(route: ServiceRoute) -> Json:
    """Return what happens to a request for this model, less the match and what reads bodies."""
    action = make_action(route)
    if isinstance(route.target, Refusal):
        action |= make_refusal(route.target, openai=True)
    return {**action, "typed_per_filter_config": make_on_demand(route)}


def _make_refusal(route: ServiceRoute, path: str) -> Json:
    """Return the route of requests whose key is for other models of the project."""
    assert route.model is not None
    asked = match_metadata(BODY_METADATA, ("model",), route.model)
    mine = [asked, of_project(route), *refused(route.model)]
    return {
        "match": {"path": path, "dynamic_metadata": mine},
        **make_answer(404, NO_MODEL),
        "typed_per_filter_config": _make_filters(path),
    }


def _make_no_model(path: str) -> Json:
    """Return the route that a request has until its model is read, and after if there is none."""
    return {
        "match": {"path": path},
        **make_answer(404, NO_MODEL),
        "typed_per_filter_config": _make_filters(path),
    }


def _make_filters(path: str) -> Json:
    return {JWT_METADATA: KEYED, **make_reading(path)}


def make_reading(path: str) -> Json:
    """Return what reads the bodies of a path.

    The JSON filter keeps the configuration of the route it starts with, so all routes of a path
    must have the same.
    """
    restricted = {} if path in TEXT_PATHS else {JSON_FILTER: make_json_requests_only()}
    return {**READING, **restricted}


def _make_catalogue(models: Sequence[ServiceRoute]) -> Iterable[Json]:
    """Yield the answers to ``GET /v1/models`` and ``/v1/models/{id}``, per project and key."""
    config: Json = {"typed_per_filter_config": {JWT_METADATA: KEYED}}
    by_project: dict[str, list[ServiceRoute]] = {}
    for route in models:
        assert route.model is not None
        by_project.setdefault(route.project, []).append(route)
        path, mine = f"/v1/models/{route.model}", [of_project(route)]
        yield {
            "match": {"path": path, "dynamic_metadata": [*mine, *refused(route.model)]},
            **make_answer(404, NO_MODEL),
            **config,
        }
        yield {
            "match": {"path": path, "dynamic_metadata": mine},
            **make_answer(200, describe_model(route)),
            **config,
        }
    listed: Json = {"typed_per_filter_config": {JWT_METADATA: KEYED, **LISTED}}
    for group in by_project.values():
        mine, described = [of_project(group[0])], [describe_model(route) for route in group]
        yield {
            "match": {"path": "/v1/models", "dynamic_metadata": [*mine, RESTRICTED]},
            **make_shown((each["id"], json.dumps(each)) for each in described),
            **make_answer(200, list_models([])),
            **listed,
        }
        yield {
            "match": {"path": "/v1/models", "dynamic_metadata": mine},
            **make_answer(200, list_models(described)),
            **listed,
        }
    yield {"match": {"path": "/v1/models"}, **make_answer(200, list_models([])), **listed}
    yield {
        "match": {"path_separated_prefix": "/v1/models"},
        **make_answer(404, NO_MODEL),
        **config,
    }


def list_models(described: Sequence[Json]) -> Json:
    """Return the answer to ``GET /v1/models``."""
    return {"object": "list", "data": list(described)}


def describe_model(route: ServiceRoute) -> Json:
    """Return a model as OpenAI's clients know it."""
    return {"id": route.model, "object": "model", "created": 0, "owned_by": route.project}
