"""API keys as Envoy checks them: signed tokens, and a list of revoked ones. Pure.

Both filters reach Envoy by extension discovery, apart from the listener: revoking a key must not
drain anybody's connections, as a changed listener would. See docs/decisions/0002.
"""

from collections.abc import Iterable

from tramontane.domain.route import KeyTrust
from tramontane.gateway.bodies import PATHS
from tramontane.gateway.descriptors import Json, typed
from tramontane.gateway.grants import JWT_METADATA

JWT_TYPE = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
REVOKED = "tramontane.revoked"
REVOKED_POLICY, SPENT_POLICY = "revoked", "spent"
RBAC_TYPE = "envoy.extensions.filters.http.rbac.v3.RBAC"
KEY_FILTERS = (JWT_METADATA, REVOKED)
KEY_PREFIX = "Bearer tram_"
KEY_HEADER = "x-tramontane-key"
"""Tells upstreams the id of the verified key; clients cannot set it."""
CLOCK_SKEW_S = 5
"""A key is refused this long after its end, by a clock that is hardly another; Envoy's own: 60."""


def make_key_filters(trust: KeyTrust, bound: Iterable[str]) -> dict[str, Json]:
    """Return the extension configurations by name, each ``{name, typed_config}``.

    ``bound`` are the ids of the services whose instances may have keys now.
    """
    return {
        JWT_METADATA: {"name": JWT_METADATA, "typed_config": make_jwt_authn(trust)},
        REVOKED: {"name": REVOKED, "typed_config": make_revocations(trust, bound)},
    }


def make_jwt_authn(trust: KeyTrust) -> Json:
    """Return the check of signature and issuer.

    Where no key is required, one that is ours and good is still taken off the request, so that an
    app never gets to see a platform key; any other ``Authorization`` passes.
    """
    provider = {
        "issuer": trust.issuer,
        "local_jwks": {"inline_string": f'{{"keys":[{trust.public_jwk}]}}'},
        "from_headers": [{"name": "Authorization", "value_prefix": KEY_PREFIX}],
        "forward": False,
        "payload_in_metadata": "key",
        # For the ledger: whoever counts has to know for whom. An id opens nothing.
        "claim_to_headers": [{"header_name": KEY_HEADER, "claim_name": "jti"}],
        "clear_route_cache": True,
        "clock_skew_seconds": CLOCK_SKEW_S,
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    required = {"provider_name": "platform"}
    return typed(
        JWT_TYPE,
        providers={"platform": provider},
        requirement_map={
            "required": required,
            "optional": {
                "requires_any": {"requirements": [required, {"allow_missing_or_failed": {}}]}
            },
        },
        rules=[{"match": {"prefix": "/"}, "requirement_name": "optional"}],
        strip_failure_response=True,
    )


def make_revocations(trust: KeyTrust, bound: Iterable[str]) -> Json:
    """Return the refusal of good signatures that are not wanted, or not at present.

    Keys that were made for a person are listed when they are revoked. Those of instances are many
    and nobody revokes them: they name their service, and end with it. Which policy refused stands
    in Envoy's details of the answer, which ``gateway.replies`` reads. Without a budget a key may
    still list its models and fetch what it has paid for.
    """
    services = [_claim("service", {"string_match": {"exact": each}}) for each in sorted(bound)]
    of_instance = _claim("service", {"present_match": True})
    ids = [of_instance, {"not_id": {"or_ids": {"ids": services}}}] if services else [of_instance]
    paid = [{"url_path": {"path": {"exact": path}}} for path in PATHS]
    policies = {
        REVOKED_POLICY: ([{"any": True}], [*_with_ids(trust.revoked), {"and_ids": {"ids": ids}}]),
        SPENT_POLICY: (paid, _with_ids(trust.spent - trust.revoked)),
    }
    return typed(
        RBAC_TYPE,
        rules={
            "action": "DENY",
            "policies": {
                name: {"permissions": permissions, "principals": principals}
                for name, (permissions, principals) in policies.items()
                if principals
            },
        },
    )


def _with_ids(tokens: Iterable[str]) -> list[Json]:
    return [_claim("jti", {"string_match": {"exact": each}}) for each in sorted(tokens)]


def _claim(name: str, value: Json) -> Json:
    """Return a principal: whoever has a key with this claim."""
    path = [{"key": "key"}, {"key": name}]
    matcher = {"filter": JWT_METADATA, "path": path, "value": value}
    return {"sourced_metadata": {"metadata_matcher": matcher}}
