"""Where one platform keeps its things on this machine.

Everything durable is below the home directory (``TRAM_HOME``), readable by its owner alone.
Sockets are elsewhere: their paths end at 107 bytes (``sun_path``, unix(7)), and homes are long.
"""

import fcntl
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tramontane.base.errors import Unsupported


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one platform."""

    home: Path
    run: Path
    """Sockets; gone after a restart of the machine, and nobody misses them."""

    @property
    def database(self) -> Path:
        """The embedded database, unless another was named by URL."""
        return self.home / "tramontane.db"

    @property
    def lock(self) -> Path:
        """Held by the control plane while it runs, so that there is one."""
        return self.home / "control.lock"

    @property
    def control(self) -> Path:
        """What the control plane says about itself: pid, start time, how it was started."""
        return self.home / "control.json"

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


def open_layout(home: Path) -> Layout:
    """Return the layout below ``home`` after making its directories, 0700.

    Raises ``Unsupported`` if a directory cannot be made or belongs to somebody else.
    """
    home = home.expanduser().absolute()
    # One short name per home, the same in every process that serves it.
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:10]
    run = Path("/tmp") / f"tram-{os.getuid()}-{name}"  # noqa: S108 - checked below
    layout = Layout(home=home, run=run)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (layout.instances, layout.gateway, layout.logs):
            directory.mkdir(mode=0o700, exist_ok=True)
        layout.sources.mkdir(mode=0o700, exist_ok=True)
        layout.builds.mkdir(mode=0o700, exist_ok=True)
        run.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Unsupported(
            f"cannot make {error.filename}: {error.strerror}; name another place with TRAM_HOME"
        ) from error
    found = run.lstat()
    # Anybody may make names in /tmp: only a directory of our own, closed to others, will do.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unsupported(f"{run} belongs to somebody else or is open to others; remove it")
    return layout
