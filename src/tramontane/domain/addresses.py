"""Whose an IP address is: this machine's own, a private network's, or anybody's. Pure.

What runs here on behalf of users, instances and builds, gets out through proxies that stand in
the machine's own network. Those ask this module before they dial, so that nobody is carried to
what trusts this machine for being itself. Called by ``gateway.reach`` and ``builders.reach``.
"""

from collections.abc import Collection, Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class AddressKind(StrEnum):
    """Whose an address is, in words that end the sentence "it is …"."""

    MACHINE = "this machine's own address"
    LINK_LOCAL = "a link-local address"
    METADATA = "the address of a cloud's metadata service"
    MULTICAST = "no address of one machine"
    PRIVATE = "an address of a private network"
    RESERVED = "a reserved address"
    PUBLIC = "a public address"


NEVER = frozenset(
    {
        AddressKind.MACHINE,
        AddressKind.LINK_LOCAL,
        AddressKind.METADATA,
        AddressKind.MULTICAST,
    }
)
"""Kinds that only the operator can open, one destination at a time."""

RANGES: tuple[tuple[AddressKind, tuple[str, ...]], ...] = (
    # The first that holds an address says its kind: metadata services lie inside wider ranges.
    (
        AddressKind.METADATA,
        (
            *("169.254.169.254/32", "169.254.170.2/32", "169.254.42.42/32", "100.100.100.200/32"),
            *("168.63.129.16/32", "192.0.0.192/32"),
            *("fd00:ec2::254/128", "fd20:ce::254/128", "fd00:42::42/128"),
        ),
    ),
    (AddressKind.MACHINE, ("0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128")),
    (AddressKind.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (AddressKind.MULTICAST, ("224.0.0.0/3", "ff00::/8")),
    (
        AddressKind.PRIVATE,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
            *("fc00::/7", "fec0::/10"),
        ),
    ),
    (
        # IANA's special-purpose registries, less what is above and what is globally reachable.
        AddressKind.RESERVED,
        (
            *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24"),
            *("203.0.113.0/24", "100::/64", "2001::/23", "2001:db8::/32"),
        ),
    ),
)

HOLDERS = ("::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")
"""IPv6 addresses that stand for an IPv4 address inside them; a packet may end there."""

_KINDS = tuple((kind, tuple(map(ip_network, texts))) for kind, texts in RANGES)
_NAT64 = ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ip_network("64:ff9b:1::/48")


def read_address(text: str) -> Address | None:
    """Return the address that a host is written as, or None if it is a name."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def kind_of(address: Address, own: Iterable[str] = ()) -> AddressKind:
    """Return whose an address is; ``own`` are the networks that are delivered to this machine."""
    address = _held(address) or address
    if any(address in ip_network(text) for text in own):
        return AddressKind.MACHINE
    for kind, networks in _KINDS:
        if any(address in network for network in networks):
            return kind
    return AddressKind.PUBLIC


def ranges_of(kinds: Collection[AddressKind]) -> tuple[str, ...]:
    """Return the networks of these kinds, for those who can only compare."""
    return tuple(text for kind, texts in RANGES if kind in kinds for text in texts)


def _held(address: Address) -> IPv4Address | None:
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64 or address in _LOCAL_NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
