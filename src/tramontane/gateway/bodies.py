"""What Envoy reads from bodies: a request's model, and nothing of answers. Pure.

Off by default, turned on where a model is chosen by its name in the body; called by
``gateway.listeners``, ``gateway.inference``, ``gateway.aliases`` and ``gateway.bindings``. The
filters keep Envoy's own names, since one that is off can be turned on by an empty configuration
only under that name. Tokens are counted where the engine runs (``metering``).
"""

from tramontane.gateway.descriptors import Json, typed

PATHS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses"),
    *("/v1/embeddings", "/v1/rerank"),
)
"""Where models are asked. Only here is a body read, so only here can a route ask for its model."""

JSON_FILTER = "envoy.filters.http.json_to_metadata"

BODY_METADATA = "tramontane.request"
"""Where the body's ``model`` and ``stream`` are found once read."""

ENABLED = typed("envoy.config.route.v3.FilterConfig", config={})
"""Turns on, for one host or route, a filter that is off otherwise."""

BUFFER_FILTER = "envoy.filters.http.buffer"

READING = {BUFFER_FILTER: ENABLED, JSON_FILTER: ENABLED}
"""For routes that choose a model. Envoy decides by the route that a request has at first which
filters read its body, so all routes of a path must have it."""


def make_buffer_filter(max_bytes: int) -> Json:
    """Return the filter that takes in a request's body whole, or refuses it with 413.

    The JSON filter alone would wait for ever for a body larger than a connection's buffer.
    """
    return typed("envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=max_bytes)


def make_json_filter() -> Json:
    """Return the filter that reads a request's model."""
    return typed(
        "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata",
        request_rules=_make_request_rules(),
    )


def _make_request_rules() -> Json:
    slot = {"metadata_namespace": BODY_METADATA, "key": "model"}
    return {
        "rules": [
            {
                "selectors": [{"key": "model"}],
                "on_present": slot,
                "on_missing": {**slot, "value": ""},
                "on_error": {**slot, "value": ""},
            },
            {
                "selectors": [{"key": "stream"}],
                "on_present": {"metadata_namespace": BODY_METADATA, "key": "stream"},
            },
        ],
        # Whatever a client calls it, the body under these paths is JSON.
        "allow_content_types_regex": {"regex": ".*"},
        "allow_empty_content_type": True,
    }
