"""What Envoy says when it answers by itself: small JSON bodies with stable codes. Pure.

Three shapes: ``{"error": {"code", "message"}}`` for apps, on the host of inference OpenAI's, and
there under Mistral's own paths Mistral's. Called by ``gateway.listeners``.
"""

from tramontane.gateway.descriptors import Json, named
from tramontane.gateway.files import BATCH_JOBS, CLUSTER
from tramontane.gateway.services import error, mistral_error, openai_error, openai_kind

INFERENCE_HOST = "inference"
"""Name of the virtual host that answers under ``/v1`` on every host that is no service."""

KEY_NEEDED = "a valid API key is needed: send it as 'Authorization: Bearer tram_…'"

SPENT_RETRY_S = 60
"""For a key whose budget is spent. A meter knows when that ends; nobody is woken to ask it."""

MEANINGS: tuple[tuple[str, int, str, str], ...] = (
    # (which local replies, status, code, message); the first that holds is used.
    (
        'response.code == 401 && response.code_details.contains("Jwt_is_expired")',
        401,
        "key_expired",
        "this API key has expired; make another with: tram tokens create",
    ),
    ("response.code == 401", 401, "invalid_api_key", KEY_NEEDED),
    (
        'response.code_details.contains("matched_policy[spent]")',
        429,
        "budget_spent",
        "this API key's budget is spent; it starts anew at midnight UTC, of the day or the month",
    ),
    (
        'response.code_details.startsWith("rbac_access_denied")',
        401,
        "key_revoked",
        "this API key has been revoked",
    ),
    (
        'response.code_details.contains("no_healthy_upstream")',
        503,
        "%CLUSTER_METADATA(tramontane:code)%",
        "%CLUSTER_METADATA(tramontane:message)%",
    ),
    (
        'response.code_details.startsWith("cluster_not_found")',
        503,
        "start_timed_out",
        "the service did not start in time; trying again may succeed",
    ),
    (
        f'response.code == 503 && xds.cluster_name == "{CLUSTER}"',
        503,
        "control_plane_unavailable",
        "files and batches cannot be reached for the moment; trying again may succeed",
    ),
    (
        "response.code == 503",
        503,
        "instance_unreachable",
        "the instance went away before it answered; trying again may succeed",
    ),
    (
        "response.code == 504",
        504,
        "first_token_timed_out",
        "no model of the alias began to answer in the time that the alias allows",
    ),
    ("response.code == 413", 413, "body_too_large", "the request body is too large"),
    ("response.code == 431", 431, "headers_too_large", "the request headers are too large"),
    ("response.code == 404", 404, "not_found", "nothing answers here"),
    ("response.code == 408", 408, "request_timed_out", "the request took too long to arrive"),
    # 501 is Envoy's word for a transfer coding that it does not know: the client's mistake as well.
    (
        "response.code == 400 || response.code == 501",
        400,
        "malformed_request",
        "the request is not valid HTTP (%RESPONSE_CODE_DETAILS%)",
    ),
)


def make_local_replies() -> Json:
    """Return the ``local_reply_config`` of the users' listener."""
    # A route's fixed answer is already what it should be.
    inference = f'xds.virtual_host_name == "{INFERENCE_HOST}"'
    jobs = f'{inference} && request.path.startsWith("{BATCH_JOBS}")'
    mappers = [make_passage()]
    mappers += [
        _make_mapper(f"{jobs} && ({when})", status, mistral_error(code, message, status))
        for when, status, code, message in MEANINGS
    ]
    mappers += _make_openai(f"{inference} && ")
    mappers += [
        _make_mapper(when, status, error(code, message)) for when, status, code, message in MEANINGS
    ]
    return {
        "mappers": mappers,
        "body_format": {
            "json_format": error("%RESPONSE_CODE_DETAILS%", "%LOCAL_REPLY_BODY%"),
        },
    }


def make_openai_replies() -> Json:
    """Return the ``local_reply_config`` of a listener that carries nothing but inference."""
    other = openai_error("%RESPONSE_CODE_DETAILS%", "%LOCAL_REPLY_BODY%", kind="server_error")
    return {
        "mappers": [make_passage(), *_make_openai()],
        "body_format": {"json_format": other},
    }


def make_condition(expression: str) -> Json:
    """Return a filter on local replies and access log entries, in CEL over Envoy's attributes."""
    return {
        "extension_filter": named(
            "envoy.access_loggers.extension_filters.cel",
            "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            expression=expression,
        )
    }


def make_passage() -> Json:
    """Return a mapper that leaves the answers of routes as they are."""
    return {
        "filter": make_condition(
            'response.code_details == "direct_response" || response.code_details == "lua_response"'
        ),
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }


def _make_openai(condition: str = "") -> list[Json]:
    return [
        _make_mapper(f"{condition}({when})", status, body)
        for when, status, code, message in MEANINGS
        for body in [openai_error(code, message, kind=openai_kind(status))]
    ]


def _make_mapper(when: str, status: int, body: Json) -> Json:
    mapper: Json = {
        "filter": make_condition(when),
        "status_code": status,
        "body_format_override": {"json_format": body},
    }
    if status == 429:
        header = {"key": "retry-after", "value": str(SPENT_RETRY_S)}
        mapper["headers_to_add"] = [{"header": header}]
    return mapper
