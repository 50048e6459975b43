"""How far one rule of a manifest reaches: decided before Envoy hears of it. Pure.

A deployer writes rules, and the proxy that carries them out stands in the machine's own network.
So a rule alone opens nothing of the machine: that takes its operator (``EgressBounds``). A rule
that names an address is judged here; what a name leads to is known only when it is resolved, and
is judged by Envoy's resolver, by the ranges given here. Called by ``gateway.egress``.
"""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.addresses import (
    HOLDERS,
    NEVER,
    AddressKind,
    kind_of,
    ranges_of,
    read_address,
)
from tramontane.domain.definition import EgressRule
from tramontane.domain.route import EgressBounds

INTERNAL = (
    *("internal", "intranet", "private", "corp", "home", "lan"),
    *("local", "home.arpa"),
)
"""Endings of names that nobody can register: only a resolver of one's own network answers them
(reserved by ICANN for private use, by RFC 6762 with its appendix G, and by RFC 8375)."""


class Way(StrEnum):
    """How a destination is reached."""

    ADDRESS = "address"
    """It is dialled as it is written."""
    PUBLIC_NAME = "public"
    """Of the addresses that the name has, only public ones are dialled."""
    PRIVATE_NAME = "private"
    """The name may also lead into a private network, but never into this machine."""


@dataclass(frozen=True, kw_only=True)
class Denial:
    """A destination is not reached although a rule names it; ``why`` ends "it is denied: …"."""

    why: str


def judge(rule: EgressRule, bounds: EgressBounds) -> Way | Denial:
    """Return how the destination of a rule is reached, or why it is not."""
    address = read_address(rule.host)
    if address is None:
        return Way.PRIVATE_NAME if _is_private(rule, bounds) else Way.PUBLIC_NAME
    kind = kind_of(address, bounds.own)
    if kind is AddressKind.MACHINE and rule.port == bounds.api_port:
        return Denial(why="it is the platform's own API, which no instance may reach")
    if kind in NEVER and rule not in bounds.allowed:
        return Denial(
            why=f"it is {kind}; whoever operates the platform can allow it with: "
            f"tram up --allow-egress-to {rule.host}:{rule.port}"
        )
    return Way.ADDRESS


def make_denied_ranges(way: Way, bounds: EgressBounds) -> tuple[str, ...]:
    """Return the networks whose addresses are left out when a name is resolved."""
    kinds = NEVER if way is Way.PRIVATE_NAME else frozenset(AddressKind) - {AddressKind.PUBLIC}
    return (*ranges_of(kinds), *HOLDERS, *bounds.own)


def _is_private(rule: EgressRule, bounds: EgressBounds) -> bool:
    if rule.host.endswith(tuple(f".{each}" for each in INTERNAL)):
        return True
    return any(each.covers(rule.host, rule.port) for each in bounds.allowed)
