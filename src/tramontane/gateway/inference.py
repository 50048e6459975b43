"""Inference under ``/v1`` on every host that is no service, without Python. Pure.

A request's model is read from its body and its project from its verified key; both together choose
the route, so Envoy alone carries it to the engine. Called by ``gateway.resources``.
"""

from collections.abc import Iterable, Sequence

from tramontane.domain.route import Refusal, ServiceRoute
from tramontane.gateway.bodies import (
    BODY_METADATA,
    JSON_FILTER,
    READING,
    TEXT_PATHS,
    make_json_requests_only,
)
from tramontane.gateway.descriptors import Json, typed
from tramontane.gateway.replies import INFERENCE_HOST
from tramontane.gateway.services import (
    JWT_METADATA,
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

KEYED = typed(
    "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig", requirement_name="required"
)


def make_inference_host(routes: Iterable[ServiceRoute]) -> Json:
    """Return the default virtual host; ``routes`` are those of models, in a stable order."""
    models = list(routes)
    return {
        "name": INFERENCE_HOST,
        "domains": ["*"],
        "routes": [
            *(_make_model_route(route, path) for route in models for path in PATHS),
            *(_make_no_model(path) for path in PATHS),
            *_make_catalogue(models),
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
    action = (
        {**make_action(route), **make_refusal(route.target, openai=True)}
        if isinstance(route.target, Refusal)
        else make_action(route)
    )
    return {
        "match": {
            "path": path,
            "dynamic_metadata": [
                match_metadata(BODY_METADATA, ("model",), route.model),
                of_project(route),
            ],
        },
        **action,
        "typed_per_filter_config": {
            **_make_filters(path),
            **make_on_demand(route),
        },
    }


def _make_no_model(path: str) -> Json:
    """Return the route that a request has until its model is read, and after if there is none."""
    body = openai_error(
        "model_not_found",
        "the model does not exist in this key's project; GET /v1/models lists those that do",
    )
    return {
        "match": {"path": path},
        **make_answer(404, body),
        "typed_per_filter_config": _make_filters(path),
    }


def _make_filters(path: str) -> Json:
    # The JSON filter keeps the configuration of the route it starts with, so all routes of a path
    # must have the same.
    restricted = {} if path in TEXT_PATHS else {JSON_FILTER: make_json_requests_only()}
    return {JWT_METADATA: KEYED, **READING, **restricted}


def _make_catalogue(models: Sequence[ServiceRoute]) -> Iterable[Json]:
    """Yield the answers to ``GET /v1/models`` and ``/v1/models/{id}``, per project."""
    config = {"typed_per_filter_config": {JWT_METADATA: KEYED}}
    by_project: dict[str, list[ServiceRoute]] = {}
    for route in models:
        by_project.setdefault(route.project, []).append(route)
        yield {
            "match": {
                "path": f"/v1/models/{route.model}",
                "dynamic_metadata": [of_project(route)],
            },
            **make_answer(200, _describe(route)),
            **config,
        }
    for group in by_project.values():
        listing = {"object": "list", "data": [_describe(route) for route in group]}
        yield {
            "match": {"path": "/v1/models", "dynamic_metadata": [of_project(group[0])]},
            **make_answer(200, listing),
            **config,
        }
    yield {
        "match": {"path": "/v1/models"},
        **make_answer(200, {"object": "list", "data": []}),
        **config,
    }
    yield {
        "match": {"path_separated_prefix": "/v1/models"},
        **make_answer(404, openai_error("model_not_found", "there is no such model")),
        **config,
    }


def _describe(route: ServiceRoute) -> Json:
    return {"id": route.model, "object": "model", "created": 0, "owned_by": route.project}
