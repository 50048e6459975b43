"""Whose an address is, whichever way it is written."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.addresses import NEVER, AddressKind, kind_of, ranges_of, read_address

OWN = ("198.18.7.7/32", "2a01:4f8::7/128", "10.9.0.0/16")


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (AddressKind.MACHINE, ("127.0.0.1", "127.8.9.1", "0.0.0.0", "0.1.2.3", "::1", "::")),
        (AddressKind.MACHINE, ("198.18.7.7", "2a01:4f8::7", "10.9.8.7")),
        (AddressKind.MACHINE, ("::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::")),
        (AddressKind.MACHINE, ("64:ff9b:1::10.9.8.7", "::ffff:198.18.7.7")),
        (AddressKind.METADATA, ("169.254.169.254", "100.100.100.200", "168.63.129.16")),
        (AddressKind.METADATA, ("fd00:ec2::254", "::ffff:169.254.169.254")),
        (AddressKind.LINK_LOCAL, ("169.254.1.1", "fe80::1", "fe80::1%eth0")),
        (AddressKind.MULTICAST, ("224.0.0.251", "255.255.255.255", "240.0.0.1", "ff02::1")),
        (AddressKind.PRIVATE, ("10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd12::1")),
        (AddressKind.RESERVED, ("192.0.2.1", "203.0.113.9", "2001:db8::1")),
        (AddressKind.PUBLIC, ("9.9.9.9", "2620:fe::fe", "64:ff9b::9.9.9.9", "172.32.0.1")),
    ],
)
def test_whose_an_address_is(kind: AddressKind, texts: tuple[str, ...]) -> None:
    assert {text: kind_of(ip_address(text), OWN) for text in texts} == dict.fromkeys(texts, kind)


def test_a_name_is_no_address() -> None:
    assert read_address("[::1]") == ip_address("::1")
    # Some resolvers take these for 127.0.0.1: they are judged when they are resolved.
    for name in ("localhost", "127.1", "2130706433", "0x7f000001", "*.0.0.1"):
        assert read_address(name) is None


@given(address=st.ip_addresses(v=4))
def test_ranges_say_the_same_as_kinds(address: object) -> None:
    kind = kind_of(ip_address(str(address)))
    networks = [ip_network(text) for text in ranges_of(set(AddressKind) - {AddressKind.PUBLIC})]
    assert any(address in network for network in networks) is (kind is not AddressKind.PUBLIC)
    never = [ip_network(text) for text in ranges_of(NEVER)]
    assert any(address in network for network in never) is (kind in NEVER)
