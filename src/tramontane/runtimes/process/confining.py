"""Runs the steps of one build within limits, and if asked in a network of their own.

By the same means as hold instances. ``builders.confinement`` starts one for each build by a command
line that the control plane hands it, since neither package imports the other, and talks to it
over a socket, a message at a time. The end of that socket is the end of everything: nothing that
was started here outlives it, nor the control plane.

What it says first is ``{"failed": why}``, or ``{}`` with the listener of the way out, which
belongs to the new network and is served from outside of it. What it is told is ``{"command",
"environment", "directory", "shown", "writable"}`` with the file to print to, and the answer is
``{"code", "over_memory"}``. ``shown`` are the files and folders that the command's words name.

Run as root it gives steps a user id of their own, as instances have one: a step that is root
outside of its sandbox, be it without any capability, may write to files of the kernel.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tramontane.base.clock import SystemClock
from tramontane.domain.definition import Resources
from tramontane.runtimes.process import examination, kernel, launching, processes, seccomp
from tramontane.runtimes.process.cgroups import (
    Place,
    find_places,
    group_of,
    make_group,
    write_limits,
)
from tramontane.runtimes.process.endings import (
    clear_children,
    exit_code,
    reap_orphans,
    remove_group,
    wait_for_exit,
    wait_readable,
)
from tramontane.runtimes.process.examination import is_privileged
from tramontane.runtimes.process.relay import listen_loopback
from tramontane.runtimes.process.sandbox import EGRESS_PORT
from tramontane.runtimes.process.watchdog import MemoryMeter

GROUP_PREFIX = "tramontane_build_"
_MESSAGE_BYTES_MAX = 1024**2
_UID = 199_999
"""Of all builds on this machine, where they are run as root; just below those of instances."""
_FD_FILTER = 5
"""Number of the file that bubblewrap reads the filter of system calls from."""
_NICENESS = 10
"""Requests of running services go first, also where no control group limits the cpu."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for all steps of the build, as JSON in the argument."""

    channel: int
    """Number of the socket to talk over."""
    resources: Resources
    sandboxed: bool
    """Whether steps make sandboxes, for which there is an empty network to begin with."""


def read_terms(text: str) -> Terms:
    """Return what ``builders.confinement`` wrote."""
    value: dict[str, Any] = json.loads(text)
    resources = Resources(**value["resources"])
    return Terms(channel=value["channel"], resources=resources, sandboxed=value["sandboxed"])


class Confined:
    """The surroundings of one build."""

    def __init__(self, terms: Terms, channel: socket.socket) -> None:
        self._terms = terms
        self._channel = channel
        places = find_places()
        _remove_stale(places)
        self._group = group_of(places, f"{GROUP_PREFIX}{os.getpid()}")
        self._places = places
        self._privileged = terms.sandboxed and is_privileged(
            Path("/proc/self/status").read_text(), os.geteuid()
        )
        self._filter = seccomp.machine_filter()

    def prepare(self) -> None:
        """Make the surroundings and say so. Raises ``OSError`` where the machine refuses."""
        kernel.adopt_orphans()
        os.nice(_NICENESS)
        make_group(self._group)
        write_limits(self._places, self._group, self._terms.resources)
        if not self._terms.sandboxed:
            self._channel.send(b"{}")
            return
        launching.enter_namespaces(privileged=self._privileged)
        with listen_loopback(EGRESS_PORT) as listener:
            socket.send_fds(self._channel, [b"{}"], [listener.fileno()])

    def serve(self) -> None:
        """Run one step after the other until nobody wants one any more."""
        while True:
            text, files, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES_MAX, 1)
            if not text:
                return
            pid = self._start(json.loads(text), files[0])
            os.close(files[0])
            code, over = asyncio.run(self._wait(pid))
            self._channel.send(json.dumps({"code": code, "over_memory": over}).encode())

    async def clear(self) -> None:
        """Leave nothing running and no control group."""
        clock = SystemClock()
        await clear_children(self._group, clock)
        await remove_group(self._group, clock)

    def _start(self, request: Mapping[str, Any], output: int) -> int:
        environment: dict[str, str] = request["environment"]
        command: list[str] = request["command"]
        program = shutil.which(command[0], path=environment.get("PATH")) or command[0]
        if self._privileged:
            for folder in request["writable"]:
                _give_away(folder)
            program, command = _show(program, command, request["shown"])
        files = {0: os.open(os.devnull, os.O_RDONLY), 1: output, 2: output}
        if self._terms.sandboxed:
            files[_FD_FILTER] = os.memfd_create("filter")
            launching.fill(files[_FD_FILTER], self._filter)
        stem = launching.make_stem(files, group=self._group, uid=_UID if self._privileged else None)
        for fd in {*files.values()} - {output}:
            os.close(fd)
        limits = launching.resource_limits(
            self._terms.resources, self._group.controllers, sandboxed=self._terms.sandboxed
        )
        stem.become(
            launching.Orders(
                program=program,
                arguments=tuple(command),
                environment=environment,
                limits=limits,
                directory=request["directory"],
            )
        )
        return stem.pid

    async def _wait(self, pid: int) -> tuple[int, bool]:
        """Return the exit code, and whether the memory limit was what ended the step."""
        meter = MemoryMeter(
            memory_bytes=self._terms.resources.memory_bytes,
            group=self._group,
            processes_of=lambda: processes.descendants(os.getpid()),
        )
        over = False
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(wait_for_exit(pid))
            # Nothing is said during a step, so what can be read is the end.
            left = tasks.create_task(wait_readable(self._channel.fileno()))
            while not (over or ended.done() or left.done()):
                await asyncio.wait(
                    [ended, left], timeout=meter.interval_s, return_when=asyncio.FIRST_COMPLETED
                )
                reap_orphans({pid})
                # Also after the end: the kernel is faster than we are, and keeps count.
                over = meter.is_over()
            left.cancel()
            _kill(pid)
        # A step's own background processes would write into those of the next.
        await clear_children(self._group, SystemClock())
        return exit_code(ended.result()), over


def _show(program: str, command: list[str], shown: list[str]) -> tuple[str, list[str]]:
    """Make reachable for any user what a sandbox is to show, and let the command say where."""
    directories = examination.bubblewrap_directories(program)
    sources = list(dict.fromkeys([*shown, *directories]))
    places = launching.stage_sources(sources, apart_from=[Path(each) for each in sources])
    words = list(command)
    for number in range(command.index("--")):
        # A bind's source moves, its target stays, and often they are the same word.
        if command[number] in {"--bind", "--ro-bind"}:
            words[number + 1] = places.get(words[number + 1], words[number + 1])
    return examination.staged_program(program, places), words


def _give_away(top: str) -> None:
    """Make a folder with all that is in it the steps' own, once."""
    if Path(top).lstat().st_uid == _UID:
        return
    # By descriptors and never through a link: another build of the same scope may be at work.
    for _, folders, files, fd in os.fwalk(top, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, _UID, _UID, dir_fd=fd, follow_symlinks=False)
    os.chown(top, _UID, _UID, follow_symlinks=False)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _remove_stale(places: Iterable[Place]) -> None:
    """Delete the groups of those that were killed before they could; the kernel ended the rest."""
    for place in places:
        for directory in place.directory.glob(f"{GROUP_PREFIX}*"):
            if not Path("/proc", directory.name.removeprefix(GROUP_PREFIX)).exists():
                with contextlib.suppress(OSError):
                    directory.rmdir()


def main() -> int:
    """Do what the argument says."""
    terms = read_terms(sys.argv[1])
    # What runs inside must not be able to speak in our place.
    os.set_inheritable(terms.channel, False)
    with socket.socket(fileno=terms.channel) as channel:
        confined = Confined(terms, channel)
        try:
            confined.prepare()
            confined.serve()
        except ConnectionError:
            return 0  # nobody is there any more
        except OSError as error:
            channel.send(json.dumps({"failed": str(error)}).encode())
            return 1
        finally:
            asyncio.run(confined.clear())
    return 0


if __name__ == "__main__":
    sys.exit(main())
