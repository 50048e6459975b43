"""The control plane's side of the launcher: starts it when needed, and asks it to start instances.

``runtime`` holds one ``Zygote``. Requests may be repeated: the launcher starts an id once only.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from tramontane.base.errors import Unavailable
from tramontane.runtimes.process.protocol import (
    LINE_BYTES_MAX,
    Options,
    options_to_text,
    to_line,
)

_ATTEMPTS = 3
_START_S = 30.0
_RETRY_S = 1.0


def launcher_command(options: Options) -> tuple[str, ...]:
    """Return the command that starts the launcher."""
    module = "tramontane.runtimes.process.launcher"
    return (sys.executable, "-P", "-m", module, options_to_text(options))


def launcher_environment(search_path: list[str]) -> dict[str, str]:
    """Return its environment: nothing of the control plane's own, which may hold secrets."""
    paths = os.pathsep.join(path for path in search_path if path)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": paths,
        "LANG": "C.UTF-8",
        "UV_USE_IO_URING": "0",  # a ring per supervisor, which relays would not use
    }


class Zygote:
    """A connection to the launcher, made anew whenever it breaks."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._turn = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send one request and return the answer, starting the launcher if there is none."""
        async with self._turn:
            for _ in range(_ATTEMPTS):
                if self._streams is None:
                    self._streams = await self._connect()
                try:
                    return await _exchange(self._streams, request)
                except (OSError, EOFError):
                    self._hang_up()
        raise Unavailable(
            f"the launcher of processes ends again and again; see {self._log}",
            retry_after_s=_RETRY_S,
        )

    async def end(self) -> None:
        """End the launcher if there is one; instances run on."""
        async with self._turn:
            self._hang_up()
            try:
                streams = await self._open()
                await _exchange(streams, {"op": "end"})
                await streams[0].read()  # until it is gone
                streams[1].close()
            except (OSError, EOFError):
                return

    def close(self) -> None:
        """Let go of the connection; the launcher lives on for as long as it is needed."""
        self._hang_up()

    @property
    def _log(self) -> str:
        return str(self._options.layout.launcher_log)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(_ATTEMPTS):
            try:
                streams = await self._open()
                answer = await _exchange(streams, {"op": "hello"})
                if answer.get("release") == self._options.release:
                    return streams
                # Its code is not ours: it was started before an upgrade. Supervisors stay.
                await _exchange(streams, {"op": "end"})
                await streams[0].read()
                streams[1].close()
            except (OSError, EOFError):
                pass
            await self._spawn()
        raise Unavailable(
            f"the launcher of processes did not start; see {self._log}", retry_after_s=_RETRY_S
        )

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        path = str(self._options.layout.launcher_socket)
        return await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)

    async def _spawn(self) -> None:
        """Start the launcher; the process started here ends when the launcher takes requests."""
        process = await asyncio.create_subprocess_exec(
            *launcher_command(self._options),
            env=launcher_environment(sys.path),
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_START_S):
                _, errors = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise Unavailable(
                f"the launcher of processes did not start within {_START_S:g} s",
                retry_after_s=_RETRY_S,
            ) from error
        if process.returncode != 0:
            raise Unavailable(
                "the launcher of processes failed to start",
                detail=errors.decode(errors="replace"),
                retry_after_s=_RETRY_S,
            )

    def _hang_up(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _exchange(
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: Mapping[str, Any]
) -> Mapping[str, Any]:
    reader, writer = streams
    writer.write(to_line(request))
    await writer.drain()
    line = await reader.readline()
    if not line:
        raise EOFError("the launcher hung up")
    return json.loads(line)
