"""The way from a service's instances to the models it is bound to: one listener on a Unix socket.

Who comes in through the socket is an instance of that service, so no key is asked for; and there is
nothing on it but ``/v1`` with these models: no other service, no API, no other path. What a
manifest binds is matched by name, like everything under ``/v1``, so a model may come, go, sleep
and wake behind its name. Pure; called by ``gateway.resources``. See
docs/decisions/0018-a-binding-is-a-way-not-a-key.md.
"""

from collections.abc import Iterable, Iterator, Sequence

from tramontane.domain.route import AliasRoute, EgressRoute, ServiceRoute
from tramontane.gateway.access_logs import REQUEST_FIELDS
from tramontane.gateway.aliases import make_alias_actions
from tramontane.gateway.bodies import BODY_METADATA, PATHS, READING
from tramontane.gateway.descriptors import Json
from tramontane.gateway.inference import (
    describe_model,
    list_models,
    make_model_action,
)
from tramontane.gateway.keys import KEY_HEADER
from tramontane.gateway.listeners import (
    BUFFER_BYTES,
    RESERVED_HEADERS,
    make_http_manager,
    make_model_filters,
)
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.replies import INFERENCE_HOST
from tramontane.gateway.services import make_answer, match_metadata, openai_error

Bound = ServiceRoute | AliasRoute
"""What a service may be bound to: a model, or an alias."""


def binding_name(service_id: str) -> str:
    """Return the name of the listener and of the route configuration of a service's models."""
    return f"models/{service_id}"


def make_binding_listener(route: EgressRoute, options: GatewayOptions) -> Json:
    """Return the listener; what is behind it comes apart, so that models may change."""
    name = binding_name(route.service_id)
    manager = make_http_manager(
        options,
        routes=name,
        filters=make_model_filters(options),
        # What others use is counted by their key, and what comes in here by its service.
        fields=REQUEST_FIELDS | {"key": route.service_id},
    )
    return {
        "name": name,
        "address": {"pipe": {"path": route.models_socket, "mode": 0o600}},
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
        "filter_chains": [{"filters": [manager]}],
    }


def choose_bound(route: EgressRoute, known: Iterable[Bound]) -> list[Bound]:
    """Return those models and aliases that the service is bound to, in the order given."""
    return [each for each in known if each.project == route.project and _name(each) in route.models]


def make_binding_routes(route: EgressRoute, bound: Sequence[Bound]) -> Json:
    """Return what answers there; ``bound`` is ``choose_bound(…)``."""
    return {
        "name": binding_name(route.service_id),
        # What a client sends of ours is taken away before what routes say of it is added.
        "most_specific_header_mutations_wins": True,
        # As for everybody else: asleep is what does not exist.
        "validate_clusters": False,
        # Clients of OpenAI cannot be without a key, but no engine needs to see it.
        "request_headers_to_remove": [*RESERVED_HEADERS, "authorization"],
        "request_headers_to_add": [
            {
                "header": {"key": KEY_HEADER, "value": route.service_id},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ],
        "virtual_hosts": [
            {
                "name": INFERENCE_HOST,
                "domains": ["*"],
                "routes": list(_make_routes(route, bound)),
                # The chains of aliases go by it.
                "include_request_attempt_count": True,
            }
        ],
    }


def _make_routes(route: EgressRoute, bound: Sequence[Bound]) -> Iterator[Json]:
    unknown = openai_error(
        "model_not_found",
        f"the model does not exist, or {route.project}/{route.service} is not bound to it; "
        "it names its models under models: in tramontane.yaml",
    )
    for path in PATHS:
        for each in bound:
            asked = match_metadata(BODY_METADATA, ("model",), _name(each))
            for more, action in _make_actions(each):
                filters = READING | action.get("typed_per_filter_config", {})
                metadata = [asked, *more.get("dynamic_metadata", ())]
                match = {"path": path, **more, "dynamic_metadata": metadata}
                yield {"match": match, **action, "typed_per_filter_config": filters}
        yield {
            "match": {"path": path},
            **make_answer(404, unknown),
            "typed_per_filter_config": READING,
        }
    described = [describe_model(_name(each), each.project) for each in bound]
    for card in described:
        yield {"match": {"path": f"/v1/models/{card['id']}"}, **make_answer(200, card)}
    yield {"match": {"path": "/v1/models"}, **make_answer(200, list_models(described))}
    yield {"match": {"path_separated_prefix": "/v1/models"}, **make_answer(404, unknown)}
    nothing = openai_error("not_found", "models answer under /v1, and nothing else does here")
    yield {"match": {"prefix": "/"}, **make_answer(404, nothing)}


def _make_actions(bound: Bound) -> Iterator[tuple[Json, Json]]:
    """Yield what more a request must match, and what happens to it then."""
    if isinstance(bound, AliasRoute):
        yield from make_alias_actions(bound)
    else:
        yield {}, make_model_action(bound)


def _name(bound: Bound) -> str:
    return bound.alias if isinstance(bound, AliasRoute) else str(bound.model)
