"""Reads our side of a golden pair, and collects Envoy's side: shared with the validation test."""

from pathlib import Path
from typing import Any

import yaml

from tramontane.domain.definition import EgressRule
from tramontane.domain.route import (
    AliasRoute,
    Choice,
    EgressRoute,
    KeyTrust,
    Refusal,
    ServiceRoute,
    Upstream,
)
from tramontane.gateway import catalogue as types
from tramontane.gateway.catalogue import Catalogue
from tramontane.gateway.descriptors import Schema
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.resources import Resources

DIRECTORY = Path(__file__).parents[2] / "golden" / "gateway"
NAMES = sorted(path.name.removesuffix(".in.yaml") for path in DIRECTORY.glob("*.in.yaml"))

TRUST = KeyTrust(
    public_jwk='{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
    issuer="tramontane",
)
OPTIONS = GatewayOptions(
    access_log=Path("/tmp/access.log"),
    egress_log=Path("/tmp/egress.log"),
    files_socket=Path("/tmp/files.sock"),
)


def translate(name: str) -> dict[str, list[dict[str, Any]]]:
    """Return Envoy's resources for one golden input, by kind, in the order they are sent."""
    given = yaml.safe_load((DIRECTORY / f"{name}.in.yaml").read_text())
    schema, catalogue = Schema(), Catalogue()
    resources = Resources(
        schema=schema,
        catalogue=catalogue,
        options=OPTIONS,
        on_wake=lambda _: None,
        on_rejected=lambda _: None,
    )
    trust = given.get("trust")
    resources.replace(
        [_read_service(each) for each in given.get("services", ())],
        [_read_egress(each) for each in given.get("egress", ())],
        KeyTrust(**{**trust, "revoked": frozenset(trust["revoked"])}) if trust else TRUST,
        [_read_alias(each) for each in given.get("aliases", ())],
    )
    return {
        kind: [
            schema.decode(kind.removeprefix("type.googleapis.com/"), resource.body)
            for resource_name in sorted(catalogue.names(kind))
            for resource in [catalogue.get(kind, resource_name)]
            if resource is not None
        ]
        for kind in types.TYPES
    }


def _read_service(given: dict[str, Any]) -> ServiceRoute:
    target = given.pop("target")
    if "status" in target:
        return ServiceRoute(target=Refusal(**target), **given)
    target.setdefault("endpoints", None)
    lists = {key: tuple(value) for key, value in target.items() if isinstance(value, list)}
    return ServiceRoute(target=Upstream(**{**target, **lists}), **given)


def _read_egress(given: dict[str, Any]) -> EgressRoute:
    rules = tuple(EgressRule(**rule) for rule in given.pop("rules"))
    return EgressRoute(rules=rules, models=tuple(given.pop("models", ())), **given)


def _read_alias(given: dict[str, Any]) -> AliasRoute:
    choices: list[dict[str, Any]] = given.pop("choices")
    for choice in choices:
        choice |= {key: tuple(value) for key, value in choice.items() if isinstance(value, list)}
    return AliasRoute(choices=tuple(Choice(**choice) for choice in choices), **given)
