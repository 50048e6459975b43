"""What Envoy reads from bodies: a request's model, an answer's token usage. Pure.

Off by default, turned on by the virtual hosts of models; called by ``gateway.listeners``,
``gateway.services`` and ``gateway.inference``. The filters keep Envoy's own names, since one that
is off can be turned on by an empty configuration only under that name.
"""

from tramontane.gateway.descriptors import Json, typed

JSON_FILTER = "envoy.filters.http.json_to_metadata"
SSE_FILTER = "envoy.filters.http.sse_to_metadata"

BODY_METADATA = "tramontane.request"
"""Where the body's ``model`` and ``stream`` are found once read."""

USAGE_METADATA = "tramontane.usage"
USAGE_FIELDS = ("prompt_tokens", "completion_tokens")

ENABLED = typed("envoy.config.route.v3.FilterConfig", config={})
"""Turns on, for one host or route, a filter that is off otherwise."""

BUFFER_FILTER = "envoy.filters.http.buffer"

JSON_TYPE = "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata"

TEXT_PATHS = ("/v1/chat/completions", "/v1/completions")
"""Answers to these are small. Embeddings are not, so their usage is not read: a JSON answer must
fit into the buffer whole, and one that does not would never arrive."""

READING = {BUFFER_FILTER: ENABLED, JSON_FILTER: ENABLED, SSE_FILTER: ENABLED}
"""For a host or route of models."""


def make_buffer_filter(max_bytes: int) -> Json:
    """Return the filter that takes in a request's body whole, or refuses it with 413.

    The JSON filter alone would wait for ever for a body larger than a connection's buffer.
    """
    return typed("envoy.extensions.filters.http.buffer.v3.Buffer", max_request_bytes=max_bytes)


def make_json_filter() -> Json:
    """Return the filter that reads a request's model and the usage in a JSON answer."""
    return typed(JSON_TYPE, request_rules=_make_request_rules(), response_rules=_make_usage_rules())


def make_json_requests_only() -> Json:
    """Return its configuration where answers may be of any size."""
    return typed(JSON_TYPE, request_rules=_make_request_rules())


def make_sse_filter() -> Json:
    """Return the filter that reads token usage from a stream, without holding it up."""
    rules = [{"rule": _make_usage_rule(field)} for field in USAGE_FIELDS]
    return typed(
        "envoy.extensions.filters.http.sse_to_metadata.v3.SseToMetadata",
        response_rules={
            "content_parser": {
                "name": "envoy.content_parsers.json",
                "typed_config": typed(
                    "envoy.extensions.content_parsers.json.v3.JsonContentParser", rules=rules
                ),
            },
            "max_event_size": 1024 * 1024,
        },
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


def _make_usage_rules() -> Json:
    return {
        "rules": [_make_usage_rule(field) for field in USAGE_FIELDS],
        "allow_content_types": ["application/json"],
    }


def _make_usage_rule(field: str) -> Json:
    return {
        "selectors": [{"key": "usage"}, {"key": field}],
        "on_present": {"metadata_namespace": USAGE_METADATA, "key": field, "type": "NUMBER"},
    }
