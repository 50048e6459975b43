"""Run one build step: stream its output, hold it to its time, leave no process behind."""

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
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and cursor movements, which mean nothing in a log."""


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
    tail: deque[str] = deque(maxlen=TAIL_LINES)
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
    try:
        async with asyncio.timeout(timeout_s):
            await _read_lines(process, tail, log)
            code = await process.wait()
    except TimeoutError as error:
        raise BuildFailed(
            f"the step {label!r} did not end within {timeout_s:g} s", detail="\n".join(tail)
        ) from error
    finally:
        await _end(process)
    if code != 0:
        raise BuildFailed(f"the step {label!r} failed ({_ended(code)})", detail="\n".join(tail))


async def _read_lines(process: Process, tail: deque[str], log: Log) -> None:
    assert process.stdout is not None, "the output is a pipe"
    rest = b""
    while data := await process.stdout.read(65_536):
        *lines, rest = (rest + data).replace(b"\r\n", b"\n").split(b"\n")
        while len(rest) > LINE_BYTES_MAX:
            lines.append(rest[:LINE_BYTES_MAX])
            rest = rest[LINE_BYTES_MAX:]
        for line in lines:
            _emit(line, tail, log)
    if rest:
        _emit(rest, tail, log)


def _emit(line: bytes, tail: deque[str], log: Log) -> None:
    # A progress bar returns to the start of its line; its last state is what a person would see.
    text = line.rpartition(b"\r")[2].decode("utf-8", errors="replace")
    text = ANSI.sub("", text)
    tail.append(text)
    log(text)


async def _end(process: Process) -> None:
    """End what is left of the step's process group, and wait until its leader is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        await asyncio.shield(process.wait())


def _ended(code: int) -> str:
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit code {code}"
