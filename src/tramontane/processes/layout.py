"""Where one platform keeps its things on this machine.

Everything durable is below the home directory (``TRAM_HOME``), readable by its owner alone.
Sockets are elsewhere: their paths end at 107 bytes (``sun_path``, unix(7)), and homes are long.
"""

import fcntl
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tramontane.base.errors import Unsupported


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one platform."""

    home: Path
    run: Path
    """Sockets; gone after ``tram down`` and after a restart of the machine: nobody misses them."""

    @property
    def database(self) -> Path:
        """The embedded database, unless another was named by URL."""
        return self.home / "tramontane.db"

    @property
    def lock(self) -> Path:
        """Held by the control plane while it runs, so that there is one."""
        return self.home / "control.lock"

    @property
    def platform(self) -> Path:
        """Addresses, for the command line and the Python clients."""
        return self.home / "platform.json"

    @property
    def credentials(self) -> Path:
        """The administrator's token."""
        return self.home / "credentials"

    @property
    def signing_key(self) -> Path:
        """The key that signs tokens."""
        return self.home / "signing.key"

    @property
    def egress_allowed(self) -> Path:
        """What the operator opened of this machine and its private networks."""
        return self.home / "egress.json"

    @property
    def instances(self) -> Path:
        """The process runtime's state."""
        return self.home / "instances"

    @property
    def gateway(self) -> Path:
        """Envoy's pid, bootstrap and logs."""
        return self.home / "gateway"

    @property
    def access_log(self) -> Path:
        """What the gateway carried: one JSON line per request."""
        return self.gateway / "access.log"

    @property
    def egress_log(self) -> Path:
        """What instances asked for outside: one JSON line per request."""
        return self.gateway / "egress.log"

    @property
    def logs(self) -> Path:
        """Output of builds and instances, by service."""
        return self.home / "logs"

    @property
    def sources(self) -> Path:
        """Uploaded archives."""
        return self.home / "sources"

    @property
    def builds(self) -> Path:
        """Artifacts, dependency layers and toolchains."""
        return self.home / "builds"

    @property
    def files(self) -> Path:
        """Contents of the files that projects keep: requests of batches and their results."""
        return self.home / "files"

    @property
    def files_socket(self) -> Path:
        """Where the gateway finds what answers for files and batches under ``/v1``."""
        return self.run / "files.sock"

    @property
    def weights(self) -> Path:
        """Files of models that were fetched."""
        return self.home / "weights"

    @property
    def ledger(self) -> Path:
        """Books of instances, until the store has what is in them."""
        return self.home / "ledger"

    def hold(self) -> TextIO | None:
        """Take the lock until the file that is returned is closed; None if somebody has it.

        The file is empty: a control plane writes its process id there.
        """
        file = self.lock.open("a+")
        self.lock.chmod(0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        file.truncate(0)
        return file

    def lock_holder(self) -> int | None:
        """Return the process id of the running control plane, or None if none runs.

        The kernel's lock decides, not the number in the file: that may be of a process long gone.
        """
        try:
            with self.lock.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read().strip() or 0) or None
        except FileNotFoundError:
            return None
        return None

    def build_log(self, service_id: str, deployment_id: str) -> Path:
        """Return the file that a deployment's build writes its lines to."""
        return self.logs / service_id / f"{deployment_id}.build.log"


def make_layout(home: Path) -> Layout:
    """Return the layout below ``home``, the same in every process that serves it."""
    home = home.expanduser().absolute()
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:10]
    return Layout(home=home, run=Path("/tmp") / f"tram-{os.getuid()}-{name}")  # noqa: S108 - open_run


def open_layout(home: Path) -> Layout:
    """Return the layout below ``home`` after making its directories, 0700.

    Raises ``Unsupported`` if a directory cannot be made.
    """
    layout = make_layout(home)
    try:
        layout.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (layout.instances, layout.gateway, layout.logs, layout.ledger):
            directory.mkdir(mode=0o700, exist_ok=True)
        layout.sources.mkdir(mode=0o700, exist_ok=True)
        layout.builds.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unsupported(
            f"cannot make {error.filename}: {error.strerror}; name another place with TRAM_HOME"
        ) from error
    return layout


def open_run(layout: Layout) -> None:
    """Make the directory of sockets, 0700.

    A control plane has the lock by then, so that ``remove_run`` does not take the directory away.
    Raises ``Unsupported`` if it belongs to somebody else.
    """
    run = layout.run
    try:
        run.mkdir(mode=0o700, exist_ok=True)
        found = run.lstat()
    except OSError as error:
        raise Unsupported(f"cannot make {run}: {error.strerror}; remove what is there") from error
    # Anybody may make names in /tmp: only a directory of our own, closed to others, will do.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unsupported(f"{run} belongs to somebody else or is open to others; remove it")


def remove_run(layout: Layout) -> None:
    """Remove the directory of sockets once all is stopped; a new control plane keeps it."""
    lock = layout.hold()
    if lock is None:
        return
    with lock:
        shutil.rmtree(layout.run, ignore_errors=True)
