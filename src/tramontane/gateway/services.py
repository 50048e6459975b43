"""Services as Envoy virtual hosts: one per service, found by host name. Pure.

Called by ``gateway.resources``, which keeps the encoded form of each, so that one change among a
thousand services encodes one virtual host.
"""

import json
from collections.abc import Iterator

from tramontane.domain.route import Refusal, ServiceRoute
from tramontane.gateway.descriptors import Json, named, typed
from tramontane.gateway.grants import JWT_METADATA, refused

JWT_ROUTE = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"
KEYED = typed(JWT_ROUTE, requirement_name="required")
"""For a host or route that nobody passes without a key."""

ON_DEMAND = "envoy.filters.http.on_demand"

START_DEADLINE_S = 60.0
"""The listener's own; hosts that differ say so. Saying it a thousand times would cost time."""


def make_service_host(route: ServiceRoute, domain: str) -> Json:
    """Return the virtual host of one service."""
    name = f"{route.service}.{route.project}.{domain}"
    filters = make_on_demand(route)
    if route.key_required:
        filters[JWT_METADATA] = KEYED
    return {
        "name": f"{route.project}/{route.service}",
        "domains": [name, f"{name}:*"],
        "routes": list(_make_routes(route)),
        "typed_per_filter_config": filters,
    }


def _make_routes(route: ServiceRoute) -> Iterator[Json]:
    key: Json = {"dynamic_metadata": [of_project(route.project)]} if route.key_required else {}
    action = make_action(route)
    if route.key_required and route.model is not None:
        mine = [of_project(route.project), *refused(route.model)]
        other = make_answer(403, error("forbidden", "this key is for other models"))
        yield {"match": {"prefix": "/", "dynamic_metadata": mine}, **other}
    yield {"match": {"prefix": "/", **key}, **action}
    if route.key_required:
        other = make_answer(403, error("forbidden", "this key is of another project"))
        yield {"match": {"prefix": "/"}, **other}


def make_action(route: ServiceRoute) -> Json:
    """Return what happens to a request of this service, less the match."""
    metadata: Json = {"project": route.project, "service": route.service}
    if isinstance(route.target, Refusal):
        action = make_refusal(route.target)
    else:
        action = {
            "route": {
                "cluster": route.target.name,
                "cluster_not_found_response_code": "SERVICE_UNAVAILABLE",
                "timeout": "0s",
                "idle_timeout": "0s",
            }
        }
    return {"metadata": {"filter_metadata": {"tramontane": metadata}}, **action}


def make_refusal(refusal: Refusal, *, openai: bool = False) -> Json:
    """Return a fixed answer in the shape of the host it is given on."""
    body = (
        openai_error(refusal.code, refusal.message, kind=openai_kind(refusal.status))
        if openai
        else error(refusal.code, refusal.message)
    )
    return make_answer(refusal.status, body, retry_after_s=refusal.retry_after_s)


def make_answer(status: int, body: Json, *, retry_after_s: int | None = None) -> Json:
    """Return a direct response with a JSON body."""
    headers = {"content-type": "application/json"}
    if retry_after_s is not None:
        headers["retry-after"] = str(retry_after_s)
    return {
        "direct_response": {"status": status, "body": {"inline_string": json.dumps(body)}},
        "response_headers_to_add": [make_header(key, value) for key, value in headers.items()],
    }


def make_header(key: str, value: str) -> Json:
    """Return a header to set, on a request or on an answer."""
    return {
        "header": {"key": key, "value": value.replace("%", "%%")},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def error(code: str, message: str) -> Json:
    """Return the error body of app hosts."""
    return {"error": {"code": code, "message": message}}


def openai_error(code: str, message: str, *, kind: str = "invalid_request_error") -> Json:
    """Return the error body that OpenAI's clients understand."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def mistral_error(code: str, message: str, status: int) -> Json:
    """Return the error body that Mistral's API gives."""
    return {
        "object": "error",
        "message": message,
        "type": openai_kind(status),
        "param": None,
        "code": code,
        "raw_status_code": status,
    }


def openai_kind(status: int) -> str:
    """Return OpenAI's ``type`` for a status."""
    if status >= 500:
        return "server_error"
    return "rate_limit_error" if status == 429 else "invalid_request_error"


def of_project(project: str) -> Json:
    """Return a match on the verified key's project."""
    return match_metadata(JWT_METADATA, ("key", "project"), project)


def match_metadata(namespace: str, path: tuple[str, ...], value: str) -> Json:
    """Return an exact match on one string of the request's dynamic metadata."""
    return {
        "filter": namespace,
        "path": [{"key": key} for key in path],
        "value": {"string_match": {"exact": value}},
    }


def make_on_demand(route: ServiceRoute) -> Json:
    """Return how long requests of this service may be held while it wakes, if not as usual."""
    if route.start_deadline_s == START_DEADLINE_S:
        return {}
    config = typed(
        "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig",
        odcds=make_odcds(route.start_deadline_s),
    )
    return {ON_DEMAND: config}


def make_on_demand_filter() -> Json:
    """Return the filter that holds requests for a cluster that does not exist yet."""
    return named(
        ON_DEMAND,
        "envoy.extensions.filters.http.on_demand.v3.OnDemand",
        odcds=make_odcds(START_DEADLINE_S),
    )


def make_odcds(timeout_s: float) -> Json:
    """Return on-demand cluster discovery over the one stream we have."""
    return {
        "source": {"ads": {}, "resource_api_version": "V3"},
        "timeout": f"{timeout_s:.3f}s",
    }
