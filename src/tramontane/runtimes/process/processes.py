"""Reading ``/proc``: who is whose child, how much memory they hold, is it still the same process.

The supervisor measures its instance with it and finds whom to signal; ``runtime`` makes sure that
nothing is left of an instance whose supervisor was killed.
"""

import os
import signal
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "zsh", "ksh"})
_KIBIBYTE = 1024


@dataclass(frozen=True, kw_only=True)
class ProcessId:
    """A process for good: its number may be given away again, the pair not."""

    pid: int
    started: int
    """Clock ticks from boot to its start, as ``/proc/<pid>/stat`` says."""

    def exists(self) -> bool:
        """Tell whether this very process is there and not just waiting to be reaped."""
        stat = _read_stat(self.pid)
        return stat is not None and stat[19] == str(self.started) and stat[0] not in {"Z", "X"}

    def kill(self) -> None:
        """Send SIGKILL to this very process, if it still exists."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.exists():
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        except OSError:
            return
        finally:
            os.close(fd)


def identify(pid: int) -> ProcessId | None:
    """Return the process that has this number now."""
    stat = _read_stat(pid)
    return ProcessId(pid=pid, started=int(stat[19])) if stat is not None else None


def children(pid: int) -> list[int]:
    """Return the direct children, of all threads."""
    found: list[int] = []
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            text = Path(task.path, "children").read_text()
            found.extend(int(child) for child in text.split())
    except (FileNotFoundError, ProcessLookupError, NotADirectoryError):
        return found
    return found


def descendants(pid: int) -> list[int]:
    """Return all processes below one, parents before their children."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        current = waiting.pop(0)
        found.append(current)
        waiting.extend(children(current))
    return found


def name(pid: int) -> str:
    """Return the short name of a process, empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def is_deaf_shell(pid: int) -> bool:
    """Tell whether a process is a shell that SIGTERM would end at once, because it set no trap."""
    if name(pid) not in _SHELLS:
        return False
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return False
    caught = next((int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")), 0)
    return not caught >> (signal.SIGTERM - 1) & 1


def stop_targets(main: int, deaf: Container[int], below: Mapping[int, list[int]]) -> list[int]:
    """Return who gets SIGTERM when an instance is asked to end: its main process.

    Unless that is a deaf shell with something running: it would not pass the signal on, and its
    death would end the program by force. Then its children get it, and the shell follows.
    """
    current = [main]
    while len(current) == 1 and current[0] in deaf and below.get(current[0]):
        current = below[current[0]]
    return current


def resident_bytes(pids: Iterable[int]) -> int:
    """Return memory that only these processes can give back, counting shared pages repeatedly.

    Pages of mapped files are left out: the kernel drops them when it needs room.
    """
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(
            int(line.split()[1]) * _KIBIBYTE
            for line in lines
            if line.startswith(("RssAnon:", "RssShmem:"))
        )
    return total


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return the same with each shared page counted once: exact, and much dearer to find out."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:  # gone, or between fork and exec
            continue
        total += sum(
            int(line.split()[1]) * _KIBIBYTE
            for line in lines
            if line.startswith(("Pss_Anon:", "Pss_Shmem:"))
        )
    return total


def marked_processes(mark: str) -> list[ProcessId]:
    """Return processes of this user whose environment holds ``mark``, such as ``NAME=value``.

    The last resort for instances without a sandbox whose supervisor was killed.
    """
    found: list[ProcessId] = []
    wanted = mark.encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            environment = Path(entry.path, "environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            identity = identify(int(entry.name))
            if identity is not None:
                found.append(identity)
    return found


def _read_stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/<pid>/stat`` from the state on (the third, says proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name before it is in brackets and may itself hold brackets and spaces.
    return text.rpartition(")")[2].split()
