"""Aliases: shares by route, and chains of models by a second pass through Envoy. Pure.

A request that names an alias goes over an internal listener, at a host that stands for the chain
of models it was given. Each attempt is a request of its own there, so a model that sleeps wakes,
and one that refuses, fails or takes too long to begin is a failed attempt: the retry policy of the
first pass tries the next. See docs/decisions/0021. Called by ``gateway.inference`` and
``gateway.resources``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tramontane.domain.route import LOTS, AliasRoute, Choice, Refusal, ServiceRoute
from tramontane.gateway.bodies import BODY_METADATA
from tramontane.gateway.clusters import CONNECT_TIMEOUT, make_circuit_breakers
from tramontane.gateway.descriptors import Json, named
from tramontane.gateway.replies import make_openai_replies
from tramontane.gateway.services import (
    make_action,
    make_answer,
    make_header,
    make_on_demand,
    make_on_demand_filter,
    make_refusal,
    openai_error,
)

CHAINS = "chains"
"""Name of the internal listener and of the one cluster that leads there."""

ALIAS_HEADER = "x-tramontane-alias"
"""Set on the first pass. Clients cannot send it, so they cannot reach a chain by its host."""
SERVICE_HEADER = "x-tramontane-service"
"""On each answer: which service of the chain gave it."""
ATTEMPT_HEADER = "x-envoy-attempt-count"
TOO_MANY = 429
"""The only status below 500 after which another model may do better."""

MATCH_STREAM: Json = {
    "filter": BODY_METADATA,
    "path": [{"key": "stream"}],
    "value": {"bool_match": True},
}


@dataclass(frozen=True, order=True)
class Chain:
    """Model services of one project, in the order in which they are tried."""

    project: str
    services: tuple[str, ...]
    silence_s: float | None = None
    """How long an attempt may be silent."""

    @property
    def host(self) -> str:
        """Where it is found on the internal listener."""
        limit = () if self.silence_s is None else (f"{self.silence_s * 1000:.0f}ms",)
        return ".".join((*self.services, self.project, *limit, "chain", "internal"))


def find_chains(route: AliasRoute) -> frozenset[Chain]:
    """Return the chains that requests of an alias may be given."""
    return frozenset(
        Chain(route.project, choice.chain, silence_s)
        for choice in route.choices
        for silence_s in {None, route.between_tokens_s}
    )


def make_alias_actions(route: AliasRoute) -> Iterator[tuple[Json, Json]]:
    """Yield what more a request must match, and what happens to it then, in order.

    Only streams are held to time limits: of any other answer nothing is seen before its end.
    """
    limited = route.first_token_s is not None or route.between_tokens_s is not None
    for choice in route.choices:
        match = _make_match(choice)
        if limited:
            of_streams = {**match, "dynamic_metadata": [MATCH_STREAM]}
            yield of_streams, _make_pass(route, choice, limited=True)
        yield match, _make_pass(route, choice, limited=False)
    if not any(choice.header is None and choice.lots == LOTS for choice in route.choices):
        message = f"alias {route.alias} has no target left: every model that it named was deleted"
        yield {}, make_answer(503, openai_error("no_target", message, kind="server_error"))


def make_chain_host(chain: Chain, models: Mapping[str, ServiceRoute]) -> Json:
    """Return the virtual host of a chain; ``models`` are those of its project, by service."""
    return {
        "name": chain.host,
        "domains": [chain.host],
        "routes": [
            _make_attempt(chain, number, models) for number in range(1, len(chain.services) + 1)
        ],
        "request_headers_to_remove": [ATTEMPT_HEADER, ALIAS_HEADER],
    }


def make_chain_cluster() -> Json:
    """Return the way from the first pass to the second."""
    address = {"envoy_internal_address": {"server_listener_name": CHAINS}}
    return {
        "name": CHAINS,
        "type": "STATIC",
        "connect_timeout": CONNECT_TIMEOUT,
        "load_assignment": {
            "cluster_name": CHAINS,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": make_circuit_breakers(),
    }


def make_chain_listener(buffer_bytes: int, rds: Json) -> Json:
    """Return the internal listener: nothing outside of this Envoy can connect to it."""
    manager = named(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=CHAINS,
        rds=rds,
        http_filters=[
            make_on_demand_filter(),
            named(
                "envoy.filters.http.router",
                "envoy.extensions.filters.http.router.v3.Router",
                suppress_envoy_headers=True,
            ),
        ],
        local_reply_config=make_openai_replies(),
        stream_idle_timeout="0s",
        request_timeout="0s",
        # A model that dies in the middle of an answer ends it at once: the peer is ourselves.
        delayed_close_timeout="0s",
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
    )
    return {
        "name": CHAINS,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": buffer_bytes,
        "ignore_global_conn_limit": True,
        "filter_chains": [{"filters": [manager]}],
    }


def _make_match(choice: Choice) -> Json:
    match: Json = {}
    if choice.header is not None:
        name, value = choice.header
        match["headers"] = [{"name": name, "string_match": {"exact": value}}]
    if choice.lots < LOTS:
        share = {"numerator": choice.lots, "denominator": "MILLION"}
        match["runtime_fraction"] = {"default_value": share}
    return match


def _make_pass(route: AliasRoute, choice: Choice, *, limited: bool) -> Json:
    chain = Chain(route.project, choice.chain, route.between_tokens_s if limited else None)
    action = {
        "cluster": CHAINS,
        "host_rewrite_literal": chain.host,
        "timeout": "0s",
        "idle_timeout": "0s",
        "retry_policy": _make_retry_policy(len(chain.services), route, limited=limited),
    }
    metadata = {"project": route.project, "alias": route.alias}
    return {
        "metadata": {"filter_metadata": {"tramontane": metadata}},
        "route": action,
        "request_headers_to_add": [make_header(ALIAS_HEADER, route.alias)],
    }


def _make_retry_policy(attempts: int, route: AliasRoute, *, limited: bool) -> Json:
    """Return when to go on in the chain: never once an answer has begun, which Envoy sees to."""
    policy: Json = {
        "retry_on": "5xx,retriable-status-codes",
        "retriable_status_codes": [TOO_MANY],
        "num_retries": attempts - 1,
        # The next attempt is at another service: there is nothing to wait for.
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
    }
    if limited and route.first_token_s is not None:
        policy["per_try_timeout"] = _seconds(route.first_token_s)
    return policy


def _make_attempt(chain: Chain, number: int, models: Mapping[str, ServiceRoute]) -> Json:
    service = chain.services[number - 1]
    route = models.get(service)
    match = {
        "prefix": "/",
        "headers": [
            {"name": ALIAS_HEADER, "present_match": True},
            {"name": ATTEMPT_HEADER, "string_match": {"exact": str(number)}},
        ],
    }
    if route is None:
        gone = Refusal(status=503, code="no_target", message=f"model {service} was deleted")
        return {"match": match, **make_refusal(gone, openai=True)}
    if isinstance(route.target, Refusal):
        action = make_refusal(route.target, openai=True)
    else:
        action = make_action(route)
        if chain.silence_s is not None:
            action["route"]["idle_timeout"] = _seconds(chain.silence_s)
    told = [*action.get("response_headers_to_add", ()), make_header(SERVICE_HEADER, service)]
    return {
        "match": match,
        **action,
        "response_headers_to_add": told,
        "typed_per_filter_config": make_on_demand(route),
    }


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.3f}s"
