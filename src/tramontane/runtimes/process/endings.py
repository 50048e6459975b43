"""How instances end: what is left of them is cleared away, and the end gets a reason.

Used by ``supervisor`` when its program is over, and by ``runtime`` for an instance whose
supervisor was killed.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass

from tramontane.base.clock import Clock
from tramontane.runtimes.process import processes
from tramontane.runtimes.process.cgroups import Group
from tramontane.runtimes.process.processes import ProcessId

_PAUSE_FIRST_S = 0.001
_PAUSE_LONGEST_S = 0.05
_CLEAR_S = 10.0
_SIGNALLED = 128
_SIGNALS_MAX = 64
_START_FAILURES = ("bwrap: ", "cannot start ")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why an instance ended."""

    reason: str
    message: str


def exit_code(wait_status: int) -> int:
    """Return an exit code, negative for a signal, also where bubblewrap reports it as 128 + n."""
    code = os.waitstatus_to_exitcode(wait_status)
    return _SIGNALLED - code if _SIGNALLED < code <= _SIGNALLED + _SIGNALS_MAX else code


def judge_exit(code: int, *, was_ready: bool, tail: list[str]) -> Ending:
    """Return the ending of a program that nobody asked to end."""
    quoted = "; last output: " + " | ".join(tail) if tail else ""
    if not was_ready and tail and tail[-1].startswith(_START_FAILURES):
        return Ending(reason="start_failed", message=tail[-1])
    if code == -signal.SIGKILL:
        return Ending(reason="killed", message="was killed by SIGKILL from outside")
    how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
    if was_ready and code == 0:
        return Ending(reason="exited", message=how)
    when = "" if was_ready else " before it was ready"
    return Ending(reason="exited", message=how + when + quoted)


async def wait_readable(fd: int) -> None:
    """Return when ``fd`` can be read; for a pidfd that is when the process has ended."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(fd, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(fd)


async def wait_for_exit(pid: int) -> int:
    """Return the wait status of a child once it has ended."""
    fd = os.pidfd_open(pid)
    try:
        await wait_readable(fd)
    finally:
        os.close(fd)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it has ended: this does not wait
    return status


async def clear_children(group: Group, clock: Clock) -> None:
    """Kill and reap everything below this process, which adopts all orphans, until none is left."""
    deadline = clock.monotonic() + _CLEAR_S
    pause_s = _PAUSE_FIRST_S
    while clock.monotonic() < deadline:
        for pid in processes.descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        group.kill()
        if not _reap_any():
            return
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_LONGEST_S)


def reap_orphans(apart_from: Iterable[int]) -> None:
    """Reap those children that ended and that nobody waits for."""
    for child in set(processes.children(os.getpid())) - set(apart_from):
        try:
            os.waitpid(child, os.WNOHANG)
        except ChildProcessError:
            continue


async def remove_group(group: Group, clock: Clock) -> None:
    """Delete the control groups as soon as the kernel has let go of the processes in them."""
    deadline = clock.monotonic() + _CLEAR_S
    pause_s = _PAUSE_FIRST_S
    while not group.remove() and clock.monotonic() < deadline:
        group.kill()
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _PAUSE_LONGEST_S)


async def clear_remains(remains: Iterable[ProcessId], group: Group, clock: Clock) -> None:
    """End what a killed supervisor left; the kernel has usually been faster."""
    deadline = clock.monotonic() + _CLEAR_S
    pause_s = _PAUSE_FIRST_S
    waiting = list(remains)
    while waiting and clock.monotonic() < deadline:
        for process in waiting:
            process.kill()
        waiting = [process for process in waiting if process.exists()]
        if waiting:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_LONGEST_S)
    group.kill()
    await remove_group(group, clock)


def _reap_any() -> bool:
    """Reap what has ended; return whether any child is left."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
