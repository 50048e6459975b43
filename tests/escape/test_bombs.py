"""Programs that take all they can get hurt themselves only: a neighbour keeps answering."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.beds import ProcessBed
from tests.conformance.programs import SERVER
from tramontane.domain.artifact import Listen
from tramontane.domain.definition import Probe, Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.testing.conformance import PATIENCE_S, Watching

SMALL = Resources(memory_bytes=96 * 1024**2, processes_max=24)

HOLD = """
import os, socket, time
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def hold():
    while True:
        server.accept()[0].close()
"""

MEMORY_BOMB = (
    HOLD
    + """
taken = []
while True:
    taken.append(bytearray(4 * 1024 * 1024))
    time.sleep(0.002)
"""
)

FORKING_MEMORY_BOMB = (
    HOLD
    + """
for _ in range(8):
    if os.fork() == 0:
        taken = bytearray(30 * 1024 * 1024)
        time.sleep(600)
hold()
"""
)

FORK_BOMB = (
    HOLD
    + """
import threading
def bomb():
    made = refused = 0
    while refused < 200:
        try:
            if os.fork() == 0:
                time.sleep(600)
            made += 1
        except OSError:
            refused += 1
    print("made", made, flush=True)
threading.Thread(target=bomb).start()
hold()
"""
)

FILL = (
    HOLD
    + """
import errno
for directory in ("/tmp", os.environ["HOME"], "/dev/shm", "/dev", "/"):
    written = 0
    try:
        with open(directory + "/fill", "wb", buffering=0) as file:
            while True:
                written += file.write(bytes(1024 * 1024))
    except OSError as error:
        print(directory, written // 1024**2, errno.errorcode[error.errno], flush=True)
        if written:
            os.remove(directory + "/fill")
hold()
"""
)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def mode_and_owner(path: Path) -> tuple[int, int]:
    return path.stat().st_mode & 0o777, path.stat().st_uid


async def ask(endpoint: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(endpoint)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def start_neighbour(bed: ProcessBed, watching: Watching) -> Observation:
    spec = bed.programs.python("ins_neighbour", SERVER)
    await bed.runtime.start(spec)
    return await watching.until(spec.id, ObservedStatus.READY)


@pytest.mark.parametrize("bomb", [MEMORY_BOMB, FORKING_MEMORY_BOMB], ids=["one", "many"])
async def test_a_memory_bomb_is_ended(bed: ProcessBed, bomb: str) -> None:
    watching = Watching(bed)
    neighbour = await start_neighbour(bed, watching)
    await bed.runtime.start(
        bed.programs.python("ins_bomb", bomb, resources=SMALL, probe=Probe(grace_s=60))
    )
    ended = await watching.until(InstanceId("ins_bomb"), ObservedStatus.EXITED)
    assert ended.reason == "out_of_memory", ended
    assert "96 MiB" in ended.message
    assert neighbour.endpoint
    assert (await ask(neighbour.endpoint)).endswith(b"ok")
    await watching.close()


async def test_a_fork_bomb_is_contained_and_gone_after_stop(bed: ProcessBed) -> None:
    watching = Watching(bed)
    neighbour = await start_neighbour(bed, watching)
    spec = bed.programs.python("ins_bomb", FORK_BOMB, resources=SMALL, probe=Probe(interval_s=60))
    await bed.runtime.start(spec)
    await watching.until(spec.id, ObservedStatus.READY)
    printed = await wait_for_line(Path(spec.log_path), '"made ')
    made = int(printed.split('"made ')[1].split('"')[0])
    assert made <= SMALL.processes_max
    assert neighbour.endpoint
    assert (await ask(neighbour.endpoint)).endswith(b"ok")
    await bed.runtime.stop(spec.id, 1.0)
    await watching.until(spec.id, ObservedStatus.EXITED)
    await watching.close()


async def test_temporary_directories_are_bounded(bed: ProcessBed) -> None:
    watching = Watching(bed)
    resources = Resources(memory_bytes=256 * 1024**2)
    spec = bed.programs.python("ins_fill", FILL, resources=resources)
    await bed.runtime.start(spec)
    last = await wait_for_line(Path(spec.log_path), '"/ ')
    log = read(Path(spec.log_path))
    assert "EROFS" in last
    assert '"/dev 0 EROFS' in log
    for directory in ("/tmp", "/home/app", "/dev/shm"):
        assert f'"{directory} 128 ENOSPC' in log, log
    await watching.close()


async def test_the_socket_directory_holds_sockets_only(bed: ProcessBed) -> None:
    """It is a directory of the host, so filling it would fill the host's disk."""
    fill = """
import os, time
with open(os.path.dirname(os.environ["TRAM_SOCKET"]) + "/fill", "wb") as file:
    for _ in range(64):
        file.write(os.urandom(1024 * 1024))
        file.flush()
        time.sleep(0.05)
time.sleep(600)
"""
    watching = Watching(bed)
    spec = bed.programs.python("ins_fill", fill, listen=Listen.UNIX, probe=Probe(grace_s=60))
    await bed.runtime.start(spec)
    ended = await watching.until(spec.id, ObservedStatus.EXITED)
    assert ended.reason == "disk_limit", ended
    await watching.close()


async def test_a_socket_replaced_by_a_link_leads_nowhere(
    bed: ProcessBed, outside: dict[str, Any]
) -> None:
    """The gateway must not be walked through a symbolic link to a socket of the host."""
    host_socket = bed.directory / "host.sock"
    answered = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.set()
        writer.close()

    server = await asyncio.start_unix_server(serve, str(host_socket))
    program = f"""
import os, socket, time
path = os.environ["TRAM_SOCKET"]
os.symlink({str(host_socket)!r}, path)
time.sleep(600)
"""
    watching = Watching(bed)
    spec = bed.programs.python("ins_link", program, listen=Listen.UNIX, probe=Probe(grace_s=0.5))
    await bed.runtime.start(spec)
    ended = await watching.until(spec.id, ObservedStatus.READY, ObservedStatus.EXITED)
    assert ended.reason == "start_deadline", ended
    assert not answered.is_set()
    server.close()
    await watching.close()


async def test_an_endpoint_is_for_the_platform_only(bed: ProcessBed) -> None:
    watching = Watching(bed)
    neighbour = await start_neighbour(bed, watching)
    assert neighbour.endpoint
    for parent in (Path(neighbour.endpoint).parent, Path(neighbour.endpoint).parent.parent):
        assert mode_and_owner(parent) == (0o700, os.getuid())
    await watching.close()


async def wait_for_line(path: Path, text: str) -> str:
    """Return the first line of a log that holds ``text``."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for line in read(path).splitlines():
                if text in line:
                    return line
            await asyncio.sleep(0.02)
