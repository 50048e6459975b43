"""Stops a platform whole: its control plane, its instances, its gateway.

``tram down`` runs it. It needs no running control plane, so it also cleans up after one that was
killed. Prints what it stopped, one line each; a second run has nothing to do and says so.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tramontane.base.clock import SystemClock
from tramontane.base.errors import TramontaneError
from tramontane.domain.observation import ObservedStatus
from tramontane.gateway.bootstrap import EnvoyPaths
from tramontane.gateway.envoy import Envoy, EnvoyOptions
from tramontane.processes.arguments import default_home
from tramontane.processes.layout import Layout, open_layout, open_run, remove_run
from tramontane.runtimes.process.runtime import ProcessRuntime

CONTROL_S = 15.0
GRACE_S = 5.0


async def stop_platform(layout: Layout) -> list[str]:
    """Stop everything of this platform; return a line for each part that ran."""
    stopped: list[str] = []
    open_run(layout)
    if await _stop_control_plane(layout):
        stopped.append("control plane")
    clock = SystemClock()
    runtime = ProcessRuntime(layout.instances, layout.run, clock=clock)
    running = [each for each in await runtime.inspect() if each.status is not ObservedStatus.EXITED]
    for each in running:
        await runtime.stop(each.instance_id, GRACE_S)
    await _wait_exited(runtime)
    for each in await runtime.inspect():
        await runtime.remove(each.instance_id)
    if running:
        stopped.append("1 instance" if len(running) == 1 else f"{len(running)} instances")
    await runtime.end_launcher()
    await runtime.close()
    envoy = Envoy(
        paths=EnvoyPaths(directory=layout.gateway, sockets=layout.run),
        options=EnvoyOptions(drain_s=1.0),
        clock=clock,
    )
    if envoy.adopt() is not None:
        await envoy.stop()
        stopped.append("gateway")
    layout.platform.unlink(missing_ok=True)
    remove_run(layout)
    return stopped


async def _stop_control_plane(layout: Layout) -> bool:
    """End the process that holds the platform's lock, if there is one."""
    pid = layout.lock_holder()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    try:
        async with asyncio.timeout(CONTROL_S):
            while layout.lock_holder() is not None:
                await asyncio.sleep(0.02)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        while layout.lock_holder() is not None:
            await asyncio.sleep(0.02)
    return True


async def _wait_exited(runtime: ProcessRuntime) -> None:
    # Every stop ends by force after the grace period, so this ends as well.
    while any(each.status is not ObservedStatus.EXITED for each in await runtime.inspect()):
        await asyncio.sleep(0.05)


def main(argv: Sequence[str] | None = None) -> int:
    """Stop the platform below ``--home``."""
    parser = argparse.ArgumentParser(prog="tramontane.processes.down")
    parser.add_argument("--home", type=Path, default=None)
    arguments = parser.parse_args(argv)
    home: Path = arguments.home or default_home()
    if not home.expanduser().exists():
        print(f"nothing runs for {home}")
        return 0
    try:
        stopped = asyncio.run(stop_platform(open_layout(home)))
    except TramontaneError as error:
        print(error.message, file=sys.stderr)
        return 1
    for part in stopped:
        print(f"stopped {part}")
    if not stopped:
        print(f"nothing runs for {home}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
