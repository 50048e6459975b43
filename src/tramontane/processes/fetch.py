"""The process that fetches weights: ``python -m tramontane.processes.fetch``, told by its input.

The first line of standard input is a ``weights.job``; input that ends means that nobody waits any
more. Prints lines of JSON: ``progress`` now and then, and at the end ``done`` or ``failed``. May be
killed at any byte; the next one goes on where it was.
"""

import json
import os
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from tramontane.base.clock import SystemClock
from tramontane.base.errors import TramontaneError
from tramontane.domain.reference import BundledReference, FileReference, parse_reference
from tramontane.weights.cache import Cache
from tramontane.weights.download import Download
from tramontane.weights.job import FetchJob, read_job
from tramontane.weights.sources import Sources
from tramontane.weights.transport import Transport

PROGRESS_S = 0.25
NICE = 10
"""Whoever answers requests goes first."""


def main() -> int:
    """Fetch what the job says; return 0 if it is here."""
    os.nice(NICE)
    job = read_job(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    meter = _Meter()
    threading.Thread(target=meter.run, daemon=True).start()
    try:
        found = _fetch(job, meter)
    except TramontaneError as error:
        _say({"event": "failed", "code": error.code, "message": error.message})
        return 1
    _say({"event": "done", "files": found})
    return 0


class _Meter:
    """Tells at a steady pace how many bytes are here, however many threads count them."""

    def __init__(self) -> None:
        self.done_bytes = 0

    def note(self, done_bytes: int) -> None:
        """Take the number of bytes that are here."""
        self.done_bytes = done_bytes

    def run(self) -> None:
        """Tell until the process ends."""
        pause, told = threading.Event(), -1
        while not pause.wait(PROGRESS_S):
            if self.done_bytes != told:
                told = self.done_bytes
                _say({"event": "progress", "done_bytes": told})


def _fetch(job: FetchJob, meter: _Meter) -> dict[str, str]:
    reference = parse_reference(job.reference)
    assert not isinstance(reference, BundledReference | FileReference), "nothing to fetch"
    stop = threading.Event()
    transport = Transport(stop.wait)
    download = Download(
        reference=reference,
        files=job.files,
        cache=Cache(Path(job.root)),
        sources=Sources(job.settings, transport, SystemClock()),
        transport=transport,
        options=job.options,
        on_bytes=meter.note,
        stop=stop,
    )
    return download.run()


def _end_with(source: BinaryIO) -> None:
    """End this process when its input ends: then its parent is gone, or wants it gone."""
    while source.read(1):
        pass
    os._exit(1)


def _say(event: dict[str, object]) -> None:
    # One write, so that the lines of two threads do not mix.
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
