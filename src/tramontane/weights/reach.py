"""Which hosts may be asked for weights: a registry is named by whoever deploys, and so judged.

The hub and the object store are named by the operator, and a registry may be, in ``sources.yaml``;
what the operator names is meant, and where it leads on. Any other may lead to public addresses
only, or to those that ``tram up --allow-egress-to`` opens: whoever may deploy should reach nothing
through the control plane that an instance could not. The address that was judged is dialled.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass

from tramontane.base.errors import SourceFailed
from tramontane.domain.addresses import NEVER, Address, AddressKind, kind_of, read_address
from tramontane.domain.route import EgressBounds


@dataclass(frozen=True)
class Reach:
    """Chooses the address to dial, or refuses."""

    bounds: EgressBounds
    resolve: Callable[[str, int], list[str]]
    """Returns the addresses of a host; none if it has none here."""

    def __call__(self, host: str, port: int) -> str | None:
        """Return the address to connect to; None: as the host's name says, since it has none here.

        Raises ``SourceFailed`` where every address of the host is out of bounds.
        """
        addresses = [found for each in self.resolve(host, port) if (found := read_address(each))]
        refusals = [self._judge(host, port, each) for each in addresses]
        for address, refusal in zip(addresses, refusals, strict=True):
            if not refusal:
                return str(address)
        if not addresses:
            return None
        raise SourceFailed(
            f"{host} may not be asked for weights: {addresses[0]} is {refusals[0]}; an operator "
            "allows it by naming the registry in sources.yaml, as `oci: {HOST:PORT: {}}`"
        )

    def _judge(self, host: str, port: int, address: Address) -> str:
        kind = kind_of(address, self.bounds.own)
        if kind is AddressKind.PRIVATE:
            opened = any(rule.covers(host, port) for rule in self.bounds.allowed)
            return "" if opened else str(kind)
        return str(kind) if kind in NEVER else ""


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host as this machine finds them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [str(each[4][0]) for each in found]
