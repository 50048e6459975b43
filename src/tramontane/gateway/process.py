"""A process that is not tied to ours: started in its own session, found again after our restart.

Used by ``gateway.envoy``. ``subprocess`` and ``asyncio`` end or complain about children that they
still hold when they go away; these must stay.
"""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path


class Process:
    """A running process, known by id and start time, so that a reused id is not mistaken for it."""

    def __init__(self, pid: int, started: str) -> None:
        self.pid = pid
        self.started = started

    def is_alive(self) -> bool:
        """Return whether it still runs."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # collects it if it is our child and has ended
        return read_start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; silence if it has ended."""
        if self.is_alive():
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> None:
        """Return when it has ended; works for processes that are not our children too."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.is_alive():
                await _wait_readable(descriptor)
        finally:
            os.close(descriptor)
        self.is_alive()


def spawn_detached(command: list[str], *, log: Path) -> Process:
    """Start a process in its own session, without input, its output appended to ``log`` (0600)."""
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    pid = os.posix_spawn(
        command[0],
        command,
        {},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    return Process(pid, read_start_time(pid) or "")


def find_process(pid: int, started: str) -> Process | None:
    """Return the process if it runs and is the one that was started then."""
    return Process(pid, started) if read_start_time(pid) == started else None


def find_started_with(argument: str) -> Process | None:
    """Return a process of this user that was started with this argument, if one runs."""
    wanted = os.fsencode(argument)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with suppress(OSError):
            # Anybody may start something with these words; ours belongs to our user.
            ours = entry.stat().st_uid == os.getuid()
            if ours and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                started = read_start_time(pid)
                if started is not None:
                    return Process(pid, started)
    return None


def read_start_time(pid: int) -> str | None:
    """Return when a process was started, as the kernel counts; None if it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


async def _wait_readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
