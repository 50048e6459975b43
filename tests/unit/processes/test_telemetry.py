"""Where spans go: nowhere, unless somebody names a place."""

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.processes.telemetry import read_collector, read_resource

ENDPOINT, HEADERS = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"
PLACE = "http://collector:4318"


def test_nowhere() -> None:
    assert read_collector(None, {}) is None
    assert read_collector(None, {ENDPOINT: ""}) is None
    assert read_collector(None, {ENDPOINT: PLACE, "OTEL_SDK_DISABLED": "TRUE"}) is None
    assert read_collector(None, {ENDPOINT: PLACE, "OTEL_TRACES_EXPORTER": "none"}) is None


@pytest.mark.parametrize(
    ("flag", "variables", "url"),
    [
        (PLACE, {}, f"{PLACE}/v1/traces"),
        (f"{PLACE}/otlp/", {ENDPOINT: "http://other"}, f"{PLACE}/otlp/v1/traces"),
        (None, {ENDPOINT: PLACE}, f"{PLACE}/v1/traces"),
        (None, {ENDPOINT: PLACE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{PLACE}/x"}, f"{PLACE}/x"),
    ],
)
def test_the_flag_comes_before_the_variables(
    flag: str | None, variables: dict[str, str], url: str
) -> None:
    found = read_collector(flag, variables)
    assert found is not None
    assert found.url == url


def test_what_the_variables_say_besides() -> None:
    found = read_collector(
        PLACE,
        {
            HEADERS: "authorization=Bearer%20a%3Db, x-tenant=7",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/etc/own.pem",
        },
    )
    assert found is not None
    assert found.headers == {"authorization": "Bearer a=b", "x-tenant": "7"}
    assert (found.timeout_s, found.compress, found.certificates) == (2.5, True, "/etc/own.pem")
    assert "Bearer" not in repr(found)
    usual = read_collector(PLACE, {})
    assert usual is not None
    assert (usual.headers, usual.timeout_s, usual.compress) == ({}, 10.0, False)


@pytest.mark.parametrize(
    ("flag", "variables", "words"),
    [
        ("collector:4318", {}, "--otlp-endpoint collector:4318: expected an address such as"),
        ("ftp://collector", {}, "expected an address"),
        ("http://", {}, "expected an address"),
        ("http://a:99999", {}, "expected an address"),
        (None, {ENDPOINT: "x"}, f"{ENDPOINT} x: expected an address"),
        (PLACE, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "is grpc"),
        (PLACE, {HEADERS: "hunter2"}, "expected key=value"),
        (PLACE, {HEADERS: "a=hunter2%0A"}, "a value holds what no header may"),
        ("http://me:hunter2@collector", {}, "holds a password"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(
    flag: str | None, variables: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        read_collector(flag, variables)
    assert "hunter2" not in f"{caught.value.message} {caught.value.next_step}"


def test_who_sends() -> None:
    assert read_resource("1.2.3", {}) == {
        "service.name": "tramontane",
        "service.version": "1.2.3",
    }
    said = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment.name=prod%20eu"}
    assert read_resource("1", said)["deployment.environment.name"] == "prod eu"
    assert read_resource("1", said)["service.name"] == "a"
    assert read_resource("1", {**said, "OTEL_SERVICE_NAME": "b"})["service.name"] == "b"
