"""Fetches that are killed, cancelled, doubled or short of disk: what others see stays right."""

import asyncio
import errno
import hashlib
import os
import random
import subprocess
import sys

import pytest

from tests.e2e.platform import wait_for
from tests.integration.weights.conftest import Fetching, make_weights
from tests.integration.weights.hub import CHUNK_BYTES, Hub
from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.domain.reference import HubReference
from tramontane.processes.fetching import PROGRAM, fetch_apart
from tramontane.weights.download import DownloadOptions
from tramontane.weights.job import FetchJob, write_job
from tramontane.weights.partial import Partial

SIZE = 2_000_000
KILLS = 20
TINY_PARTS = DownloadOptions(part_bytes=200_000, note_bytes=20_000, connections=4)


def make_job(fetching: Fetching, pinned: HubReference) -> FetchJob:
    return FetchJob(
        root=str(fetching.cache.root),
        reference=str(pinned),
        files=fetching.sources.list_files(pinned),
        settings=fetching.settings,
        options=TINY_PARTS,
    )


def check_blobs(fetching: Fetching) -> None:
    """What is seen is whole, and what its name says."""
    for path in fetching.cache.blobs.iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def start(job: FetchJob) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-m", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(write_job(job))
    process.stdin.flush()
    return process


def bytes_whole(fetching: Fetching) -> int:
    """Return how much of the files on their way would not be fetched again."""
    here: dict[str, int] = {}
    for folder in fetching.cache.partial.iterdir():
        for line in (folder / "parts").read_text().splitlines()[1:]:
            number, _, count = line.partition(" ")
            here[f"{folder} {number}"] = int(count)
    return sum(here.values())


def test_a_fetch_that_is_killed_again_and_again_gets_there(hub: Hub, fetching: Fetching) -> None:
    weights = make_weights(SIZE)
    hub.repository("local/big").commit({"m.gguf": weights, "README.md": b"hello"})
    hub.faults.bytes_per_s = 100_000
    job = make_job(fetching, fetching.pin("local/big"))
    choose = random.Random(20)
    whole = 0
    for _ in range(KILLS):
        sent, enough = hub.bytes_sent, choose.randint(0, 150_000)
        with start(job) as process:
            wait_for(lambda: hub.bytes_sent >= sent + enough, "the fetch to get on")  # noqa: B023
            process.kill()
        check_blobs(fetching)
        before, whole = whole, bytes_whole(fetching)
        assert whole >= before, "what was whole stays"
    assert 0 < whole < SIZE
    hub.faults.bytes_per_s = 0
    sent = hub.bytes_sent
    found = asyncio.run(fetch_apart(job, lambda _: None))
    assert fetching.cache.blob(found["m.gguf"]).read_bytes() == weights
    check_blobs(fetching)
    assert not list(fetching.cache.partial.iterdir())
    # The hub may still have been sending to the last one that was killed.
    late = TINY_PARTS.connections * CHUNK_BYTES
    assert hub.bytes_sent - sent <= SIZE - whole + late, "what was whole is not fetched again"


def test_the_process_ends_with_its_parent(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/big").commit({"m.gguf": make_weights(SIZE)})
    hub.faults.bytes_per_s = 50_000
    job = make_job(fetching, fetching.pin("local/big"))
    with start(job) as process:
        wait_for(lambda: hub.bytes_sent, "the fetch to begin")
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 1


async def test_a_cancelled_fetch_is_gone_at_once_and_goes_on_later(
    hub: Hub, fetching: Fetching
) -> None:
    weights = make_weights(SIZE)
    hub.repository("local/big").commit({"m.gguf": weights})
    hub.faults.bytes_per_s = 200_000
    job = make_job(fetching, fetching.pin("local/big"))
    seen: list[int] = []
    task = asyncio.ensure_future(fetch_apart(job, seen.append))
    while not seen:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    hub.faults.bytes_per_s = 0
    found = await fetch_apart(job, seen.append)
    assert fetching.cache.blob(found["m.gguf"]).read_bytes() == weights
    assert seen[-1] <= SIZE


async def test_two_who_want_the_same_content_fetch_it_once(hub: Hub, fetching: Fetching) -> None:
    weights = make_weights(SIZE)
    hub.repository("local/one").commit({"m.gguf": weights})
    hub.repository("local/copy").commit({"other-name.gguf": weights})
    hub.faults.bytes_per_s = 1_000_000
    jobs = [make_job(fetching, fetching.pin(name)) for name in ("local/one", "local/copy")]
    one, copy = await asyncio.gather(*(fetch_apart(job, lambda _: None) for job in jobs))
    assert one["m.gguf"] == copy["other-name.gguf"]
    assert hub.bytes_sent == SIZE


async def test_what_the_process_could_not_do_is_told_in_its_words(
    hub: Hub, fetching: Fetching
) -> None:
    hub.repository("local/big").commit({"m.gguf": make_weights(SIZE)})
    job = make_job(fetching, fetching.pin("local/big"))
    hub.repositories.clear()
    with pytest.raises(InvalidRequest, match="has no such repository"):
        await fetch_apart(job, lambda _: None)


def test_a_full_disk_is_named_and_nothing_is_lost(
    hub: Hub, fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = make_weights(500_000)
    hub.repository("local/big").commit({"m.gguf": weights})
    pinned = fetching.pin("local/big")
    write, written = Partial.write, [0]

    def write_some(self: Partial, chunk: bytes, at: int) -> None:
        written[0] += len(chunk)
        if written[0] > 300_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, chunk, at)

    monkeypatch.setattr(Partial, "write", write_some)
    with pytest.raises(Unsupported, match=r"the disk under .* is full; make room"):
        fetching.fetch(pinned)
    monkeypatch.undo()
    assert fetching.fetch(pinned) == {"m.gguf": weights}
