"""From a supervisor to a running program: namespaces first, then fork, limits, and exec.

The fork comes early: the *stem* is a child that has its control group, descriptors and user, and
waits for orders, which are all that is left to do when an instance is wanted at once.

``preparing`` calls it once per instance, ``examination`` once for a trial sandbox. The caller has
one thread only: the child runs Python between ``fork`` and ``exec``.
"""

import contextlib
import fcntl
import json
import os
import resource
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tramontane.base.errors import Unsupported
from tramontane.domain.definition import Resources
from tramontane.runtimes.process import kernel
from tramontane.runtimes.process.cgroups import Controller, Group
from tramontane.runtimes.process.sandbox import FD_ARGUMENTS, Sandbox

_FILES_MAX = 65_536
_FILE_BYTES_MAX = 16 * 1024**3
_BUBBLEWRAP_PROCESSES = 4
_DATA_BYTES_SLACK = 2 * 1024**3
_OUT_OF_MEMORY_SCORE = "500"
"""When the whole machine runs short, programs end before the platform does."""

_HIGH_FD = 100
_STAGE_CANDIDATES = ("/mnt", "/media", "/srv", "/opt")
_DEFAULT_SIGNALS = (
    *(signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM),
    *(signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT),
)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What a stem becomes."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    limits: tuple[tuple[int, int], ...] = ()
    """(RLIMIT_…, value)"""
    directory: str = "/"


@dataclass(frozen=True, kw_only=True)
class Stem:
    """A child that will become a program of an instance when it is told which."""

    pid: int
    orders: int
    """Pipe to it."""

    def become(self, orders: Orders) -> None:
        """Let it exec. If that fails it ends with status 127 and a line on its stderr."""
        try:
            with os.fdopen(self.orders, "w") as pipe:
                json.dump(asdict(orders), pipe)
        except BrokenPipeError:
            return  # it is dead, which its exit tells


def enter_namespaces(*, privileged: bool) -> None:
    """Give this process a network of its own, with nothing in it but a loopback device.

    It makes the namespaces instead of letting bubblewrap do so: that way its listeners exist
    before the program runs, nothing has to be joined later, and the program holds no rights over
    its own network. As an ordinary user that takes a user namespace around the sandbox's own; as
    root it takes none, but a mount namespace so that ``stage_sources`` stays invisible outside.
    """
    if privileged:
        kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_SLAVE)
    else:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    kernel.bring_loopback_up()


def stage_sources(sources: Iterable[str], *, apart_from: Iterable[Path]) -> dict[str, str]:
    """Show each source at a path that any user can reach, in this mount namespace only.

    As root, bubblewrap runs under a user id that may not pass through, say, root's home; a mount
    of a directory below it needs no such passage. Returns source → where it is shown now.
    """
    stage = _find_stage(list(apart_from))
    opened = {source: os.open(source, os.O_PATH | os.O_CLOEXEC) for source in sources}
    kernel.mount("tmpfs", stage, "tmpfs", 0, "mode=755,size=1m")
    shown: dict[str, str] = {}
    slots: dict[Path, Path] = {}
    for source, fd in opened.items():
        # Siblings stay siblings: a program may find its libraries beside itself.
        parent = Path(source).parent
        slot = slots.setdefault(parent, Path(stage) / str(len(slots)))
        slot.mkdir(exist_ok=True)
        slot.chmod(0o755)  # whatever the umask says
        point = slot / (Path(source).name or "root")
        if Path(source).is_dir():
            point.mkdir()
        else:
            point.touch()
        kernel.mount(f"/proc/self/fd/{fd}", str(point), None, kernel.MS_BIND | kernel.MS_REC)
        os.close(fd)
        shown[source] = str(point)
    return shown


def make_stem(descriptors: Mapping[int, int], *, group: Group, uid: int | None) -> Stem:
    """Fork a stem. ``descriptors``: number in the program → descriptor here; others stay closed.

    ``uid`` is the user and group id to run as; None: the caller's own.
    """
    parent = os.getpid()
    orders, orders_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(orders)
        return Stem(pid=pid, orders=orders_write)
    program = "a program"
    try:
        os.close(orders_write)
        _settle(descriptors, group, uid, parent)
        with os.fdopen(orders) as pipe:
            text = pipe.read()
        if text:  # nothing: the instance was never wanted
            wanted: dict[str, Any] = json.loads(text)
            program = wanted["program"]
            _become(Orders(**wanted))
    except BaseException as error:  # noqa: BLE001 - the child must never run on as its parent
        with contextlib.suppress(OSError):
            os.write(2, f"cannot start {program}: {error}\n".encode())
    finally:
        os._exit(127)


def sandbox_arguments(sandbox: Sandbox, title: str) -> tuple[str, ...]:
    """Return bubblewrap's argv; all but the command comes through ``FD_ARGUMENTS``."""
    return (title, "--args", str(FD_ARGUMENTS), "--", *sandbox.command)


def fill(fd: int, data: bytes) -> None:
    """Write the content of a file that the program will read from its start."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)


def encode_arguments(sandbox: Sandbox) -> bytes:
    """Return the arguments as bubblewrap reads them from a descriptor."""
    return b"".join(os.fsencode(argument) + b"\0" for argument in sandbox.arguments)


def resource_limits(
    resources: Resources, controllers: frozenset[Controller], *, sandboxed: bool
) -> tuple[tuple[int, int], ...]:
    """Return (RLIMIT_…, value) for one instance: what the control group does not hold already."""
    limits = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
        (resource.RLIMIT_FSIZE, _FILE_BYTES_MAX),
    ]
    if Controller.MEMORY not in controllers:
        # Per process, and it counts address space that may never be used, thread stacks for one:
        # so it is wide, a stop for a burst that the supervisor's measurements come too late for.
        limits.append((resource.RLIMIT_DATA, 2 * resources.memory_bytes + _DATA_BYTES_SLACK))
    if Controller.PIDS not in controllers and sandboxed:
        # Outside a user namespace of its own this would count all processes of the user.
        limits.append((resource.RLIMIT_NPROC, resources.processes_max + _BUBBLEWRAP_PROCESSES))
    return tuple(limits)


def _find_stage(apart_from: list[Path]) -> str:
    for candidate in _STAGE_CANDIDATES:
        inside = any(path.resolve().is_relative_to(candidate) for path in apart_from)
        if not inside and Path(candidate).is_dir():
            return candidate
    raise Unsupported(
        f"none of {', '.join(_STAGE_CANDIDATES)} is a directory that can be mounted over; "
        "create an empty /mnt"
    )


def _settle(descriptors: Mapping[int, int], group: Group, uid: int | None, parent: int) -> None:
    group.join()
    Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
    high = {
        number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
        for number, fd in descriptors.items()
    }
    for number, fd in high.items():
        os.dup2(fd, number, inheritable=True)
    os.umask(0o022)
    os.setsid()
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    kernel.die_with_parent(parent, signal.SIGKILL)


def _become(orders: Orders) -> None:
    os.chdir(orders.directory)
    for kind, value in orders.limits:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)  # noqa: PLW2901 - raising it is not ours to do
        resource.setrlimit(kind, (value, value))
    os.execve(orders.program, orders.arguments, dict(orders.environment))  # noqa: S606 - no shell
