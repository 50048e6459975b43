"""Where spans go: what ``tram up`` and OpenTelemetry's own variables say. Pure; called by control.

https://opentelemetry.io/docs/specs/otel/protocol/exporter has the variables. Nothing is sent
anywhere that neither the flag nor one of them names.
"""

from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from tramontane.base.errors import InvalidRequest
from tramontane.wire.collector import TIMEOUT_S, CollectorOptions

FLAG = "--otlp-endpoint"
PATH = "/v1/traces"
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not listened on


def read_collector(flag: str | None, variables: Mapping[str, str]) -> CollectorOptions | None:
    """Return where spans go, or None if nowhere. Raises ``InvalidRequest``."""
    url = _below(flag, FLAG) if flag else _url_of(variables)
    if url is None:
        return None
    if _said(variables, "PROTOCOL") == "grpc":
        raise InvalidRequest(
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but spans are sent as http/json",
            path="OTEL_EXPORTER_OTLP_PROTOCOL",
            next_step="set it to http/json, and the endpoint to the collector's HTTP port (4318)",
        )
    return CollectorOptions(
        url=url,
        headers=_headers(_said(variables, "HEADERS")),
        timeout_s=_seconds(_said(variables, "TIMEOUT")),
        compress=_said(variables, "COMPRESSION") == "gzip",
        certificates=_said(variables, "CERTIFICATE") or None,
    )


def read_resource(version: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return what all spans say of who sends them."""
    name = "OTEL_RESOURCE_ATTRIBUTES"
    resource = {"service.name": "tramontane", "service.version": version}
    resource |= _pairs(variables.get(name, ""), name)
    if own := variables.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = own
    return resource


def _url_of(variables: Mapping[str, str]) -> str | None:
    disabled = variables.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or variables.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    own, general = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    if url := variables.get(own):
        return _checked(url, own)
    return _below(variables[general], general) if variables.get(general) else None


def _below(url: str, name: str) -> str:
    return _checked(url, name).rstrip("/") + PATH


def _checked(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    else:
        if parts.username is not None or parts.password is not None:
            # The address is logged, and an argument is for everybody to read.
            raise InvalidRequest(
                f"{name} holds a password",
                path=name,
                next_step="give it in OTEL_EXPORTER_OTLP_HEADERS, as authorization=…",
            )
    if not valid:
        raise InvalidRequest(
            f"{name} {url}: expected an address such as http://127.0.0.1:4318", path=name
        )
    return url


def _said(variables: Mapping[str, str], name: str) -> str:
    own, general = f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
    return variables.get(own) or variables.get(general, "")


def _pairs(text: str, name: str) -> dict[str, str]:
    """Return ``key=value,…``, as in W3C Baggage: values are percent-encoded."""
    found: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or not key.strip().isascii():
            # Without the text: it may hold a credential.
            raise InvalidRequest(f"{name}: expected key=value, separated by commas", path=name)
        found[key.strip()] = unquote(value.strip())
    return found


def _headers(text: str) -> dict[str, str]:
    name = "OTEL_EXPORTER_OTLP_HEADERS"
    found = _pairs(text, name)
    if not all(value.isascii() and value.isprintable() for value in found.values()):
        raise InvalidRequest(f"{name}: a value holds what no header may", path=name)
    return found


def _seconds(text: str) -> float:
    return int(text) / 1000 if text.isascii() and text.isdigit() and int(text) else TIMEOUT_S
