"""From a supervisor to a running program: namespaces first, then fork, limits, and exec.

``supervisor`` calls it once per instance, ``examination`` once for a trial sandbox. The caller has
one thread only: the child runs Python between ``fork`` and ``exec``.
"""

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tramontane.base.errors import Unsupported
from tramontane.domain.definition import Resources
from tramontane.runtimes.process import kernel
from tramontane.runtimes.process.cgroups import NO_GROUP, Controller, Group
from tramontane.runtimes.process.sandbox import (
    FD_ARGUMENTS,
    FD_FILES,
    FD_FILTER,
    FD_STATUS,
    Sandbox,
)

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
class Start:
    """One program to start."""

    program: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    descriptors: Mapping[int, int]
    """Number in the program → descriptor here; all others stay closed."""
    limits: tuple[tuple[int, int], ...] = ()
    group: Group = NO_GROUP
    uid: int | None = None
    """User and group id to run as, of the caller's user namespace; None: the caller's own."""
    directory: str = "/"


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


def start_sandbox(program: str, sandbox: Sandbox, start: Start, seccomp: bytes) -> int:
    """Start bubblewrap on a sandbox; ``start`` holds the rest. Returns its process id."""
    status = start.descriptors[FD_STATUS]
    encoded = b"".join(os.fsencode(argument) + b"\0" for argument in sandbox.arguments)
    opened = {
        FD_ARGUMENTS: kernel.memory_file("arguments", encoded),
        FD_FILTER: kernel.memory_file("seccomp", seccomp),
    }
    for number, content in enumerate(sandbox.files):
        opened[FD_FILES + number] = kernel.memory_file("file", content)
    try:
        return spawn(
            Start(
                program=program,
                arguments=(
                    *(start.arguments or ("bwrap",)),
                    *("--args", str(FD_ARGUMENTS), "--", *sandbox.command),
                ),
                environment={},
                descriptors={**start.descriptors, FD_STATUS: status, **opened},
                limits=start.limits,
                group=start.group,
                uid=start.uid,
            )
        )
    finally:
        for fd in opened.values():
            os.close(fd)


def spawn(start: Start) -> int:
    """Fork and exec; a failure in between ends the child with status 127 and a line on stderr."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(start, parent)
    except BaseException as error:  # noqa: BLE001 - the child must never run on as its parent
        with contextlib.suppress(OSError):
            os.write(2, f"cannot start {start.program}: {error}\n".encode())
    finally:
        os._exit(127)


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


def _become(start: Start, parent: int) -> None:
    start.group.join()
    Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
    high = {
        number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
        for number, fd in start.descriptors.items()
    }
    for number, fd in high.items():
        os.dup2(fd, number, inheritable=True)
    os.umask(0o022)
    os.setsid()
    os.chdir(start.directory)
    for number in _DEFAULT_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for kind, value in start.limits:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)  # noqa: PLW2901 - raising it is not ours to do
        resource.setrlimit(kind, (value, value))
    if start.uid is not None:
        os.setgroups([])
        os.setresgid(start.uid, start.uid, start.uid)
        os.setresuid(start.uid, start.uid, start.uid)
    kernel.die_with_parent(parent, signal.SIGKILL)
    os.execve(start.program, start.arguments, dict(start.environment))  # noqa: S606 - no shell wanted
