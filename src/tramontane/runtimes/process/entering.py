"""Runs one more command inside an instance that already runs: ``tram exec``.

``supervisor`` calls it. The command gets what the program has: its namespaces, user, environment,
limits and system call filter, and nothing more.
"""

import contextlib
import os
import resource
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from tramontane.runtimes.process import kernel
from tramontane.runtimes.process.cgroups import Group
from tramontane.runtimes.process.sandbox import SANDBOX_UID

_ALL_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
    | kernel.CLONE_NEWCGROUP
)
"""Not the network: the supervisor is in it already."""

_NOT_FOUND = 127
_SIGNALLED = 128


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One command to run inside."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    limits: tuple[tuple[int, int], ...]
    group: Group
    seccomp: bytes
    pid: int | None
    """The program whose namespaces are entered; None: there is no sandbox."""
    privileged: bool


@dataclass(frozen=True, kw_only=True)
class Entered:
    """A command that runs inside; the caller closes the two pipes and waits for ``pid``."""

    pid: int
    stdout: int
    stderr: int


def enter(entry: Entry) -> Entered:
    """Fork into the sandbox. The process returned ends as the command does; 128 + n: by signal."""
    stdout_read, stdout_write = os.pipe()
    stderr_read, stderr_write = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = _NOT_FOUND
        try:
            _arrange_descriptors(stdout_write, stderr_write)
            code = _pass_through(entry, parent)
        except BaseException as error:  # noqa: BLE001 - the child must never run on as its parent
            with contextlib.suppress(OSError):
                os.write(2, f"cannot run {entry.command[0]}: {error}\n".encode())
        finally:
            os._exit(code)
    os.close(stdout_write)
    os.close(stderr_write)
    return Entered(pid=pid, stdout=stdout_read, stderr=stderr_read)


def _arrange_descriptors(stdout: int, stderr: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    # Nothing of the supervisor may be open once this process is visible inside the sandbox.
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _pass_through(entry: Entry, parent: int) -> int:
    kernel.die_with_parent(parent, signal.SIGKILL)
    # Until exec this is a copy of the supervisor: nobody inside may look into it.
    kernel.set_dumpable(False)
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    entry.group.join()
    if entry.pid is None:
        return _become(entry)
    if entry.privileged:
        os.setgroups([])
    target = os.pidfd_open(entry.pid)
    kernel.set_namespaces(target, _ALL_NAMESPACES)
    os.close(target)
    middle = os.getpid()
    child = os.fork()  # a process joins a PID namespace only with its children
    if child == 0:
        try:
            _confine(entry, middle)
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"cannot run {entry.command[0]}: {error}\n".encode())
        finally:
            os._exit(_NOT_FOUND)
    _, status = os.waitpid(child, 0)
    return _SIGNALLED + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _confine(entry: Entry, middle: int) -> None:
    assert middle
    os.setsid()
    kernel.drop_capability_bounds()
    os.setresgid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    os.setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID)
    kernel.set_dumpable(False)  # changing the user has reset it
    kernel.die_with_parent(0, signal.SIGKILL)  # from in here the parent has no number: 0
    kernel.set_no_new_privileges()
    kernel.install_filter(entry.seccomp)
    _become(entry)


def _become(entry: Entry) -> int:
    os.umask(0o022)
    os.chdir(entry.directory)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    for kind, value in entry.limits:
        with contextlib.suppress(ValueError):
            resource.setrlimit(kind, (value, value))
    os.execvpe(entry.command[0], entry.command, dict(entry.environment))  # noqa: S606
