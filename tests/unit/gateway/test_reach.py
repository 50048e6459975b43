"""What a manifest alone can open, and what only the operator can."""

import pytest

from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds
from tramontane.gateway.reach import Denial, Way, judge, make_denied_ranges

API_PORT = 8081
OWN = ("192.168.7.7/32", "127.0.0.0/8")
BOUNDS = EgressBounds(own=OWN, api_port=API_PORT)


def rule(text: str) -> EgressRule:
    host, _, port = text.rpartition(":")
    return EgressRule(host=host, port=int(port))


def bounds(*allowed: str) -> EgressBounds:
    rules = frozenset(rule(text) for text in allowed)
    return EgressBounds(own=OWN, api_port=API_PORT, allowed=rules)


@pytest.mark.parametrize(
    ("destination", "word"),
    [
        ("127.0.0.1:5432", "this machine's own"),
        ("0.0.0.0:5432", "this machine's own"),
        ("192.168.7.7:5432", "this machine's own"),
        ("169.254.169.254:80", "metadata"),
        ("169.254.0.7:80", "link-local"),
        ("255.255.255.255:80", "no address of one machine"),
    ],
)
def test_a_manifest_alone_opens_nothing_of_the_machine(destination: str, word: str) -> None:
    found = judge(rule(destination), BOUNDS)
    assert isinstance(found, Denial)
    assert word in found.why
    assert f"tram up --allow-egress-to {destination}" in found.why
    assert judge(rule(destination), bounds(destination)) is Way.ADDRESS


def test_leave_is_for_one_port_of_one_address() -> None:
    allowed = bounds("127.0.0.1:5432")
    assert isinstance(judge(rule("127.0.0.1:5433"), allowed), Denial)
    assert isinstance(judge(rule("127.0.0.2:5432"), allowed), Denial)
    assert isinstance(judge(rule("192.168.7.7:5432"), allowed), Denial)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "0.0.0.0", "192.168.7.7"])
def test_the_api_is_never_reached_whoever_allowed_it(host: str) -> None:
    destination = f"{host}:{API_PORT}"
    found = judge(rule(destination), bounds(destination))
    assert isinstance(found, Denial)
    assert "API" in found.why
    assert "--allow-egress-to" not in found.why


def test_a_private_network_is_reached_by_address_and_by_its_own_names() -> None:
    for destination in ("10.1.2.3:11112", "192.168.7.8:443", "172.16.0.9:1521"):
        assert judge(rule(destination), BOUNDS) is Way.ADDRESS
    for destination in ("pacs.radiology.internal:11112", "*.klinik.lan:443", "nas.local:445"):
        assert judge(rule(destination), BOUNDS) is Way.PRIVATE_NAME


def test_a_public_name_leads_there_only_with_the_operators_leave() -> None:
    assert judge(rule("pacs.klinik.example:11112"), BOUNDS) is Way.PUBLIC_NAME
    assert judge(rule("internal:443"), BOUNDS) is Way.PUBLIC_NAME
    named = bounds("pacs.klinik.example:11112", "*.labor.example:443")
    assert judge(rule("pacs.klinik.example:11112"), named) is Way.PRIVATE_NAME
    assert judge(rule("pacs.klinik.example:443"), named) is Way.PUBLIC_NAME
    assert judge(rule("lis.labor.example:443"), named) is Way.PRIVATE_NAME
    assert judge(rule("*.labor.example:443"), named) is Way.PRIVATE_NAME
    assert judge(rule("labor.example:443"), named) is Way.PUBLIC_NAME
    assert judge(rule("*.example:443"), named) is Way.PUBLIC_NAME


def test_no_name_leads_into_the_machine() -> None:
    for way in (Way.PUBLIC_NAME, Way.PRIVATE_NAME):
        denied = make_denied_ranges(way, BOUNDS)
        for network in (*OWN, "127.0.0.0/8", "169.254.0.0/16", "::1/128", "::ffff:0:0/96"):
            assert network in denied
    assert "10.0.0.0/8" in make_denied_ranges(Way.PUBLIC_NAME, BOUNDS)
    assert "10.0.0.0/8" not in make_denied_ranges(Way.PRIVATE_NAME, BOUNDS)
