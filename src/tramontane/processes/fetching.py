"""Runs ``processes.fetch`` for the control plane: one process per fetch, ended when nobody waits.

The control plane hands ``fetch_apart`` to ``weights.fetcher``.
"""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tramontane.base.errors import SourceFailed, TramontaneError
from tramontane.weights.job import FetchJob, write_job
from tramontane.wire.codes import ERRORS

PROGRAM = "tramontane.processes.fetch"
LINE_BYTES_MAX = 4 * 1024**2


async def fetch_apart(job: FetchJob, on_bytes: Callable[[int], None]) -> Mapping[str, str]:
    """Fetch what is missing; return the sha256 of each file by its name.

    ``on_bytes`` is called with the bytes that are here. When the caller is cancelled, the process
    is gone before this returns. Raises what the process said was wrong.
    """
    # Its errors go to the control plane's log: they are bugs, since what users should know is said.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", PROGRAM), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES_MAX
    )
    try:
        assert process.stdin is not None
        # Kept open: its end tells the process that nobody waits, also if we are killed.
        process.stdin.write(write_job(job))
        with suppress(ConnectionError):
            await process.stdin.drain()
        return await _follow(process, on_bytes)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


async def _follow(process: Process, on_bytes: Callable[[int], None]) -> Mapping[str, str]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        event: dict[str, Any] = json.loads(line)
        match event["event"]:
            case "progress":
                on_bytes(event["done_bytes"])
            case "done":
                return event["files"]
            case _:
                raise _error(event["code"], event["message"])
    code = await process.wait()
    raise SourceFailed(f"the process that fetches ended with {code}; what has arrived is kept")


def _error(code: str, message: str) -> TramontaneError:
    kind = next((each for each in ERRORS if each.code == code), TramontaneError)
    return kind(message)
