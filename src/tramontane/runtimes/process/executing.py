"""The supervisor's side of ``execute``: starts a command inside, collects its output, ends it."""

import asyncio
import base64
import os
import signal
from collections.abc import Mapping
from typing import Any

from tramontane.runtimes.process import processes
from tramontane.runtimes.process.endings import wait_for_exit
from tramontane.runtimes.process.entering import Entry, enter
from tramontane.runtimes.process.preparing import Started

_OUTPUT_BYTES_MAX = 4 * 1024**2
_DRAIN_S = 0.5


class _Output(asyncio.Protocol):
    """Keeps the beginning of what a command prints, and lets it print on."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.data += data[: _OUTPUT_BYTES_MAX - len(self.data)]

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class Executor:
    """Runs commands in one instance; several may run at a time."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self.pids: set[int] = set()
        """Children that are waited for here."""

    async def execute(
        self, app: int, command: tuple[str, ...], timeout_s: float
    ) -> Mapping[str, Any]:
        """Run a command beside the process ``app`` and return the answer for the control plane."""
        started, powers = self._started, self._started.plot.powers
        entered = enter(
            Entry(
                command=command,
                environment=started.environment,
                directory=started.directory,
                limits=started.limits,
                group=started.group,
                seccomp=powers.seccomp,
                pid=app if powers.sandboxed else None,
                privileged=powers.privileged,
            )
        )
        self.pids.add(entered.pid)
        stdout, stderr = _Output(), _Output()
        loop = asyncio.get_running_loop()
        for output, fd in ((stdout, entered.stdout), (stderr, entered.stderr)):
            pipe = os.fdopen(fd, "rb", buffering=0)
            await loop.connect_read_pipe(lambda output=output: output, pipe)
        timed_out = asyncio.Event()

        def end() -> None:
            timed_out.set()
            _kill_tree(entered.pid)

        handle = loop.call_later(timeout_s, end)
        try:
            status = await wait_for_exit(entered.pid)
        finally:
            handle.cancel()
            self.pids.discard(entered.pid)
        await _drain(stdout, stderr)
        if timed_out.is_set():
            return {
                "error": "timed_out",
                "message": f"{command[0]} did not end within {timeout_s:g} s and was killed",
            }
        code = os.waitstatus_to_exitcode(status)
        return {
            "exit_code": code,
            "stdout": base64.b64encode(stdout.data).decode(),
            "stderr": base64.b64encode(stderr.data).decode(),
        }


async def _drain(*outputs: _Output) -> None:
    try:
        async with asyncio.timeout(_DRAIN_S):
            for output in outputs:
                await output.ended.wait()
    except TimeoutError:  # something that the command left running holds its output open
        return


def _kill_tree(pid: int) -> None:
    for member in (*processes.descendants(pid), pid):
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue
