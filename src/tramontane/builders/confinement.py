"""Runs the steps of one build within limits and out of reach of the machine's network.

``build`` makes one for each build. The limits are held by a process of its
own (``BuildSettings.confinement``) that knows how to; here is what the build's side of it does:
hand it the steps, serve the way out of its network, and put what went wrong into words.
"""

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tramontane.base.errors import BuildFailed, Unsupported
from tramontane.builders.proxy import Proxy
from tramontane.builders.reach import Reach
from tramontane.builders.sandbox import Bind
from tramontane.builders.settings import BuildSettings, Log
from tramontane.builders.steps import Output, failed, out_of_time

PROXY_PORT = 3128
"""Of the loopback inside, where the way out is: as ``runtimes.process.confining`` has it."""
START_S = 30.0
LEAVE_S = 15.0
MESSAGE_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class Command:
    """What one step runs."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    binds: Sequence[Bind]
    """What of the machine it is shown, by words of ``argv`` that name it."""


class Confinement:
    """What holds the steps of one build; started by the first of them, if there is one."""

    def __init__(self, settings: BuildSettings, reach: Reach, log: Log) -> None:
        self._settings = settings
        self._reach = reach
        self._log = log
        self._running: _Running | None = None

    async def run(self, label: str, command: Command) -> None:
        """Run one step to its end and log what it prints.

        Raises ``BuildFailed`` naming the step if it fails or breaks a limit, with its last lines
        in ``detail``, and ``Unsupported`` if this machine cannot confine it. Where it raises, or
        is cancelled, nothing that ran is left.
        """
        output = Output(label, self._log)
        request = {
            "command": command.argv,
            "environment": command.environment,
            "directory": command.directory,
            "shown": [bind.source for bind in command.binds],
            "writable": [bind.source for bind in command.binds if bind.writable],
        }
        timeout_s = self._settings.step_timeout_s
        try:
            if self._running is None:
                self._running = await _begin(self._settings, Proxy(self._reach, self._log))
            async with asyncio.timeout(timeout_s):
                answer = await self._running.ask(json.dumps(request).encode(), output)
        except TimeoutError as error:
            await self.end()
            raise out_of_time(label, timeout_s, output) from error
        except BaseException:
            await asyncio.shield(self.end())
            raise
        if answer["over_memory"]:
            mebibytes = self._settings.resources.memory_bytes // 1024**2
            raise BuildFailed(
                f"the step {label!r} used more than the {mebibytes} MiB of memory that a build "
                "may use; have it do less at once",
                detail=output.tail,
            )
        if answer["code"] != 0:
            raise failed(label, answer["code"], output)

    async def end(self) -> None:
        """End all that still runs. Silence if nothing does."""
        running, self._running = self._running, None
        if running is not None:
            await running.end()


@dataclass(kw_only=True)
class _Running:
    """The process that holds the limits, and the way out of the network that it made."""

    process: Process
    channel: socket.socket
    proxy: Proxy

    async def ask(self, request: bytes, output: Output) -> Mapping[str, Any]:
        """Have a step run, and return how it ended."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        try:
            reader = asyncio.StreamReader()
            transport, _ = await loop.connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
            )
            socket.send_fds(self.channel, [request], [writing])
        finally:
            os.close(writing)
        try:
            await output.read(reader)
            answer = await loop.sock_recv(self.channel, MESSAGE_BYTES_MAX)
        finally:
            transport.close()
        if not answer:
            raise BuildFailed("what held the build to its limits was killed; deploy again")
        return json.loads(answer)

    async def end(self) -> None:
        """Return when nothing of it runs any more: the end of the channel is what it waits for."""
        self.channel.close()
        await self.proxy.close()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


async def _begin(settings: BuildSettings, proxy: Proxy) -> _Running:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    terms = {
        "channel": theirs.fileno(),
        "resources": asdict(settings.resources),
        "sandboxed": settings.enclosed,
    }
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *settings.confinement,
            json.dumps(terms),
            # Nothing of the platform's own environment, which may hold secrets.
            env={"LANG": "C.UTF-8", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=DEVNULL,
            stdout=DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    running = _Running(process=process, channel=ours, proxy=proxy)
    try:
        listener = await _meet(ours)
        if listener is not None:
            await proxy.start(listener)
    except BaseException:
        await asyncio.shield(running.end())
        raise
    return running


async def _meet(channel: socket.socket) -> socket.socket | None:
    """Return the listener of the way out, if there is one, once steps can be run."""
    try:
        async with asyncio.timeout(START_S):
            await _wait_readable(channel)
    except TimeoutError as error:
        raise Unsupported(f"what holds builds to limits did not start in {START_S:g} s") from error
    text, files, _, _ = socket.recv_fds(channel, MESSAGE_BYTES_MAX, 1)
    failed = json.loads(text).get("failed", "") if text else "it ended at once"
    if failed:
        raise Unsupported(
            f"this machine cannot keep a build apart: {failed}; tram doctor shows what is missing"
        )
    return socket.socket(fileno=files[0]) if files else None


async def _wait_readable(channel: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(channel, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(channel)
