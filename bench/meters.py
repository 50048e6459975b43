"""A meter as the supervisor of a model's instance runs it, in a process of its own.

``bench.inference_vs_litellm`` puts it between the gateway and its upstream. Run as a program:
``python -m bench.meters ENDPOINT UPSTREAM DIRECTORY``.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from bench.envoys import wait_listening
from bench.gateways import PROJECT
from tramontane.base.clock import SystemClock
from tramontane.domain.usage import Account, Price
from tramontane.engines.llamacpp import METER, REQUESTS_MAX
from tramontane.metering.allowances import Gate
from tramontane.metering.books import Books
from tramontane.metering.engine_link import EngineLink
from tramontane.metering.engine_wire import ENGINES
from tramontane.metering.exchange import Way
from tramontane.metering.meter import Meter
from tramontane.runtimes.process.relay import listen_unix

ACCOUNT = Account(
    instance="ins_bench",
    project=PROJECT,
    service="model",
    digest="sha256:0",
    cell="local",
    price=Price(prompt=150_000_000, completion=600_000_000),
)


@contextmanager
def run_meter(endpoint: str, upstream: str, directory: Path) -> Iterator[int]:
    """Run a meter until the block ends; yield its process id."""
    log = directory / "meter.log"
    command = [sys.executable, "-m", "bench.meters", endpoint, upstream, str(directory)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        wait_listening(endpoint, process, log)
        yield process.pid
    finally:
        process.kill()
        process.wait()


async def serve(endpoint: str, upstream: str, directory: Path) -> None:
    """Carry requests until killed."""
    loop = asyncio.get_running_loop()
    way = Way(
        engine=ENGINES[METER],
        link=EngineLink(lambda made: loop.create_unix_connection(made, upstream), REQUESTS_MAX),
        books=Books(directory, ACCOUNT),
        gate=Gate(directory),
        clock=SystemClock(),
    )
    await Meter(listen_unix(endpoint), way).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
