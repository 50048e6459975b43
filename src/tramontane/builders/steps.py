"""Run one command of a build: stream its output, hold it to its time, leave no process behind.

``run_step`` is for the platform's own tools. The steps of a recipe run code of strangers and go
through ``confinement``, which shares the words and the way of reading with it.
"""

import asyncio
import contextlib
import os
import re
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Mapping, Sequence

from tramontane.base.errors import BuildFailed
from tramontane.builders.settings import Log

TAIL_LINES = 60
LINE_BYTES_MAX = 4_096
OUTPUT_BYTES_MAX = 32 * 1024**2
"""What one step may print: its lines are kept on the platform's disk."""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and cursor movements, which mean nothing in a log."""


class Output:
    """What a step prints: handed on line by line, its end kept for an error message."""

    def __init__(self, label: str, log: Log) -> None:
        self._label = label
        self._log = log
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(self._lines)

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read until nobody can print any more; raises ``BuildFailed`` if it is too much."""
        rest, left = b"", OUTPUT_BYTES_MAX
        while data := await reader.read(65_536):
            left -= len(data)
            if left < 0:
                raise BuildFailed(
                    f"the step {self._label!r} printed more than {OUTPUT_BYTES_MAX // 1024**2} "
                    "MiB; have it print less",
                    detail=self.tail,
                )
            *lines, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n")
            while len(rest) > LINE_BYTES_MAX:
                lines.append(rest[:LINE_BYTES_MAX])
                rest = rest[LINE_BYTES_MAX:]
            for line in lines:
                self._emit(line)
        if rest:
            self._emit(rest)

    def _emit(self, line: bytes) -> None:
        # A progress bar returns to the start of its line; its last state is what a person would
        # see.
        text = line.rpartition(b"\r")[2].decode("utf-8", errors="replace")
        text = ANSI.sub("", text)
        self._lines.append(text)
        self._log(text)


async def run_step(
    label: str,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    log: Log,
    timeout_s: float,
    directory: str = "/",
) -> None:
    """Run a command to its end, handing each line of its output to ``log``.

    Raises ``BuildFailed`` naming the step if it fails or takes too long; ``detail`` holds the last
    lines. When the caller is cancelled, the whole process group is ended before this returns.
    """
    output = Output(label, log)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildFailed(
            f"the step {label!r} failed: cannot run {argv[0]}: {error.strerror}"
        ) from error
    assert process.stdout is not None, "the output is a pipe"
    try:
        async with asyncio.timeout(timeout_s):
            await output.read(process.stdout)
            code = await process.wait()
    except TimeoutError as error:
        raise out_of_time(label, timeout_s, output) from error
    finally:
        await _end(process)
    if code != 0:
        raise failed(label, code, output)


def out_of_time(label: str, timeout_s: float, output: Output) -> BuildFailed:
    """Return the error for a step that takes too long."""
    return BuildFailed(
        f"the step {label!r} did not end within {timeout_s:g} s, which is as long as a step of a "
        "build may take",
        detail=output.tail,
    )


def failed(label: str, code: int, output: Output) -> BuildFailed:
    """Return the error for a step that ended with this exit code, negative for a signal."""
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return BuildFailed(f"the step {label!r} failed ({how})", detail=output.tail)


async def _end(process: Process) -> None:
    """End what is left of the step's process group, and wait until its leader is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await asyncio.shield(process.wait())
