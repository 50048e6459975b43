"""The gateway's settings: few, with defaults that fit one machine."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """What ``processes`` decides about one gateway; everything else follows from routes."""

    address: str = "127.0.0.1"
    port: int = 8080
    """Where users' requests arrive. Port 0 lets the kernel choose."""
    domain: str = "localhost"
    """Services answer at ``<service>.<project>.<domain>``."""
    access_log: Path
    """One JSON line per request to a service or model; never bodies, queries or credentials."""
    egress_log: Path
    """One JSON line per request of an instance to the outside, allowed or denied."""
    files_socket: Path
    """Where the control plane answers for files and batches under ``/v1``."""
    load_interval_s: float = 1.0
    body_max_bytes: int = 32 * 1024 * 1024
    """Largest request under ``/v1``, where the body must be read before it can be routed."""
    headers_max_kib: int = 60
    egress_dns_servers: tuple[str, ...] = ()
    """``address:port`` of resolvers for the way out; empty: the machine's own."""
