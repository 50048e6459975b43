"""Takes the addresses that a platform answers at, and tells who has one that is taken.

``control`` takes the API's address here, and looks whether the gateway's is free before Envoy is
started on it.
"""

import errno
import shlex
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path

from tramontane.base.errors import Conflict, InvalidRequest, TramontaneError
from tramontane.processes.arguments import Address
from tramontane.processes.layout import make_layout

_LISTENS = "0A"
_WANTED_FOR = {"--gateway": "the gateway", "--api": "the API"}


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A socket that listens, as the kernel lists it."""

    address: IPv4Address | IPv6Address
    port: int
    inode: str


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that has an address."""

    pid: int
    name: str
    home: Path | None
    """Of the platform that it belongs to."""


def listen(address: Address, flag: str) -> socket.socket:
    """Return a listening socket. Raises ``Conflict`` if somebody else has the address."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except OSError as error:
        listening.close()
        raise explain(error, address, flag, find_holder(address)) from error
    listening.listen(1024)
    return listening


def listen_privately(path: Path) -> socket.socket:
    """Return a socket that listens at a path, for processes of this user alone."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(1024)
    return listening


def check_free(address: Address, flag: str, *, adopted: int | None) -> None:
    """Raise ``Conflict`` unless the address is free, or the process that was adopted has it."""
    if adopted is not None:
        holder = find_holder(address)
        if holder is not None and holder.pid == adopted:
            return
    listen(address, flag).close()


def explain(error: OSError, address: Address, flag: str, holder: Holder | None) -> TramontaneError:
    """Return what a user should know about an address that could not be had."""
    use = _WANTED_FOR[flag]
    next_step = f"choose another with {flag} HOST:PORT"
    if error.errno != errno.EADDRINUSE:
        return InvalidRequest(
            f"cannot listen on {address} for {use}: {error.strerror}",
            path=flag,
            next_step=next_step,
        )
    if holder is None:
        who = "a process that this user may not see"
    elif holder.home is None:
        who = f"{holder.name} (process {holder.pid})"
    else:
        who = f"the platform of TRAM_HOME {holder.home} (process {holder.pid})"
        home = shlex.quote(str(holder.home))
        next_step += f", or stop that platform: TRAM_HOME={home} tram down"
    return Conflict(
        f"port {address.port} is taken: {address}, wanted for {use}, is held by {who}",
        next_step=next_step,
    )


def find_holder(address: Address) -> Holder | None:
    """Return who listens at the address, if this user may know."""
    tables = [Path("/proc/net") / name for name in ("tcp", "tcp6")]
    listeners = [
        each for path in tables if path.exists() for each in read_listeners(path.read_text())
    ]
    wanted = {f"socket:[{each.inode}]" for each in listeners if held_by(each, address)}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and wanted.intersection(_descriptors(entry)):
            with suppress(OSError):  # it may end while we look
                command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                name = (entry / "comm").read_text().strip()
                return Holder(pid=int(entry.name), name=name, home=find_home(command))
    return None


def read_listeners(table: str) -> list[Listener]:
    """Return the listening sockets in the text of ``/proc/net/tcp`` or ``tcp6``."""
    found: list[Listener] = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTENS:
            address, _, port = fields[1].partition(":")
            found.append(Listener(address=_address(address), port=int(port, 16), inode=fields[9]))
    return found


def held_by(listener: Listener, address: Address) -> bool:
    """Return whether nobody else can have the address while the listener is there."""
    if listener.port != address.port:
        return False
    try:
        wanted = ip_address(address.host)
    except ValueError:  # a name: its port is all we know
        return True
    return listener.address == wanted or listener.address.is_unspecified or wanted.is_unspecified


def find_home(command: Sequence[str]) -> Path | None:
    """Return the home of the platform that a command line shows to be part of it."""
    pairs = dict(pairwise(command))
    if "--home" in pairs and "tramontane.processes.control" in command:
        layout = make_layout(Path(pairs["--home"]))
    elif "--config-path" in pairs:
        configuration = Path(pairs["--config-path"])
        layout = make_layout(configuration.parent.parent)
        if configuration.parent != layout.gateway:
            return None
    else:
        return None
    return layout.home if layout.lock.exists() else None


def _address(text: str) -> IPv4Address | IPv6Address:
    raw = bytes.fromhex(text)
    # The kernel prints words of four bytes in the machine's order.
    words = (raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    return ip_address(b"".join(words))


def _descriptors(process: Path) -> Iterator[str]:
    """Yield what a process has open, as far as this user may see it."""
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())
