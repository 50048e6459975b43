"""Access logs as JSON lines: who asked for what and what became of it. Pure.

Never bodies, query strings or credentials: a key appears by its id only.
"""

from tramontane.gateway.bodies import BODY_METADATA
from tramontane.gateway.descriptors import Json, named
from tramontane.gateway.grants import JWT_METADATA

REQUEST_FIELDS: Json = {
    "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "project": "%METADATA(ROUTE:tramontane:project)%",
    "service": "%METADATA(ROUTE:tramontane:service)%",
    "alias": "%METADATA(ROUTE:tramontane:alias)%",
    "served_by": "%RESP(X-TRAMONTANE-SERVICE)%",
    "upstream": "%UPSTREAM_CLUSTER_RAW%",
    "endpoint": "%UPSTREAM_HOST%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ:PATH)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "first_byte_ms": "%RESPONSE_DURATION%",
    "request_bytes": "%BYTES_RECEIVED%",
    "response_bytes": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "key": f"%DYNAMIC_METADATA({JWT_METADATA}:key:jti)%",
    "model": f"%DYNAMIC_METADATA({BODY_METADATA}:model)%",
}


def make_access_log(path: str, fields: Json) -> Json:
    """Return a file access log that writes ``fields`` as one JSON object per line."""
    return named(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        path=path,
        log_format={"json_format": fields, "omit_empty_values": True},
    )
