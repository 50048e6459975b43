"""The flags of the control plane's process, as ``tram up`` passes them on."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import EgressRule
from tramontane.domain.usage import parse_euros
from tramontane.plan.garbage import Limits
from tramontane.processes.network import FLAG, parse_allowed
from tramontane.processes.telemetry import FLAG as OTLP_FLAG
from tramontane.processes.telemetry import read_collector
from tramontane.wire.collector import CollectorOptions


@dataclass(frozen=True, kw_only=True)
class Address:
    """A TCP address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, with brackets around an IPv6 address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class ControlArguments:
    """What a control plane is started with."""

    home: Path
    gateway: Address
    api: Address
    country: str | None
    operator: str | None
    hourly_cost: str | None
    """In euro; None: what an earlier start said."""
    isolation: str
    database: str | None
    collector: CollectorOptions | None
    """Where spans of requests go."""
    egress_allowed: frozenset[EgressRule] | None
    """Into this machine and its private networks; None: what an earlier start said."""
    limits: Limits
    """How much is kept of what nothing needs any more."""
    weights_bytes_max: int | None
    """What all weights of models may take together; None: a share of the disk."""


def default_home() -> Path:
    """Return ``TRAM_HOME``, or ``tramontane`` in the XDG data directory."""
    if home := os.environ.get("TRAM_HOME"):
        return Path(home)
    data = os.environ.get("XDG_DATA_HOME", "")
    return (Path(data) if Path(data).is_absolute() else Path("~/.local/share")) / "tramontane"


def parse_address(text: str, flag: str) -> Address:
    """Return the address in ``HOST:PORT``. Raises ``InvalidRequest`` naming the flag."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidRequest(
            f"{flag} {text}: expected HOST:PORT, such as 127.0.0.1:8080", path=flag
        )
    return Address(host=host.strip("[]"), port=int(port))


def parse_control_arguments(argv: Sequence[str]) -> ControlArguments:
    """Return the control plane's arguments. Raises ``InvalidRequest``."""
    parser = argparse.ArgumentParser(prog="tramontane.processes.control", exit_on_error=False)
    parser.add_argument("--home", type=Path, default=None)
    parser.add_argument("--gateway", default="127.0.0.1:8080")
    parser.add_argument("--api", default="127.0.0.1:8081")
    parser.add_argument("--country")
    parser.add_argument("--operator")
    parser.add_argument("--hourly-cost")
    parser.add_argument(OTLP_FLAG)
    parser.add_argument("--isolation", choices=("sandbox", "none"), default="sandbox")
    parser.add_argument(FLAG, action="append", dest="egress_allowed", metavar="HOST:PORT")
    usual = Limits()
    parser.add_argument("--keep-deployments", type=int, default=usual.deployments_kept)
    parser.add_argument("--keep-unneeded", type=float, default=usual.unneeded_kept_s)
    parser.add_argument("--cache-limit", type=int, default=usual.caches_bytes_max)
    parser.add_argument("--weights-limit", type=int)
    try:
        found = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise InvalidRequest(str(error)) from error
    gateway = parse_address(found.gateway, "--gateway")
    api = parse_address(found.api, "--api")
    if gateway == api:
        raise InvalidRequest(
            f"--gateway and --api are both {api}",
            path="--api",
            next_step="give each an address of its own",
        )
    if found.hourly_cost is not None and parse_euros(found.hourly_cost) is None:
        raise InvalidRequest(
            f"--hourly-cost {found.hourly_cost}: expected an amount in euro, such as 0.12",
            path="--hourly-cost",
        )
    return ControlArguments(
        home=found.home or default_home(),
        gateway=gateway,
        api=api,
        country=found.country,
        operator=found.operator,
        hourly_cost=found.hourly_cost,
        isolation=found.isolation,
        # Never an argument: the URL may hold a password, and everybody may read arguments.
        database=os.environ.get("TRAM_DATABASE"),
        collector=read_collector(found.otlp_endpoint, os.environ),
        egress_allowed=(
            None if found.egress_allowed is None else parse_allowed(found.egress_allowed)
        ),
        limits=Limits(
            # Below one, the number of the newest deployment would be given again.
            deployments_kept=max(found.keep_deployments, 1),
            unneeded_kept_s=found.keep_unneeded,
            caches_bytes_max=found.cache_limit,
        ),
        weights_bytes_max=found.weights_limit,
    )
