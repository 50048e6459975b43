"""The process runtime when things are killed, forked, flooded or started all at once."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.conformance.beds import ProcessBed
from tests.conformance.programs import SERVER
from tramontane.base.errors import InvalidRequest
from tramontane.domain.artifact import Listen, Mount
from tramontane.domain.definition import Probe, ProbeKind
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process.processes import children, descendants, name
from tramontane.runtimes.process.protocol import Isolation
from tramontane.testing.conformance import FIRST, PATIENCE_S, SECOND, Behaviour, Watching


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when a condition holds that nothing announces."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        pytest.fail(f"did not come true: {what}")


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def status(bed: ProcessBed, instance_id: str) -> dict[str, object]:
    return json.loads((bed.directory / "state/instances" / instance_id / "status.json").read_text())


def supervisor_of(bed: ProcessBed, instance_id: str) -> int:
    found = status(bed, instance_id)["supervisor"]
    assert isinstance(found, dict)
    return found["pid"]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}


def launcher_of(bed: ProcessBed) -> int:
    mark = str(bed.directory)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and name(int(entry.name)) == "tram-launcher":
            try:
                if mark in (entry / "cmdline").read_text():
                    return int(entry.name)
            except OSError:
                continue
    raise AssertionError("no launcher runs")


async def serve(
    bed: ProcessBed, watching: Watching, instance_id: InstanceId = FIRST
) -> Observation:
    await bed.runtime.start(bed.spec(instance_id, Behaviour.SERVES))
    return await watching.until(instance_id, ObservedStatus.READY)


async def test_killing_a_supervisor_ends_its_instance(bed: ProcessBed) -> None:
    watching = Watching(bed)
    ready = await serve(bed, watching)
    supervisor = supervisor_of(bed, FIRST)
    family = descendants(supervisor)
    assert ready.pid in family
    os.kill(supervisor, signal.SIGKILL)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.pid) == ("killed", ready.pid)
    await wait_until(lambda: not any(map(is_alive, family)), f"{family} are gone")
    await watching.close()


async def test_an_instance_with_a_hung_supervisor_can_be_removed(bed: ProcessBed) -> None:
    watching = Watching(bed)
    ready = await serve(bed, watching)
    assert ready.pid
    supervisor = supervisor_of(bed, FIRST)
    os.kill(supervisor, signal.SIGSTOP)
    await bed.runtime.remove(FIRST)
    assert not is_alive(supervisor)
    assert not is_alive(ready.pid)
    assert not await bed.runtime.inspect()
    await watching.close()


async def test_a_dead_supervisor_is_found_after_a_restart(bed: ProcessBed) -> None:
    watching = Watching(bed)
    await serve(bed, watching)
    await watching.close()
    supervisor = supervisor_of(bed, FIRST)
    await bed.process_runtime.close()
    os.kill(supervisor, signal.SIGKILL)
    await wait_until(lambda: not is_alive(supervisor), "the supervisor is gone")
    await bed.renew()
    (ended,) = await bed.runtime.inspect()
    assert (ended.status, ended.reason) == (ObservedStatus.EXITED, "killed")


async def test_groups_of_killed_supervisors_are_removed(bed: ProcessBed) -> None:
    """The one that waits is killed too, and the launcher with it: the next launcher cleans up."""
    watching = Watching(bed)
    await serve(bed, watching)
    launcher = launcher_of(bed)
    await wait_until(lambda: len(children(launcher)) == 3, "the next supervisors wait")
    groups = [group for pid in children(launcher) for group in groups_below(pid)]
    family = [launcher, *children(launcher)]
    for pid in family:
        os.kill(pid, signal.SIGKILL)
    await watching.until(FIRST, ObservedStatus.EXITED)
    await serve(bed, watching, SECOND)
    await wait_until(lambda: not any(map(os.path.exists, groups)), f"{groups} are gone")
    await watching.close()


def groups_below(pid: int) -> list[str]:
    """Return the control groups of the processes below one, without those it is in itself."""
    named = [
        line.rsplit("/", 1)[1]
        for below in descendants(pid)
        for line in read(Path(f"/proc/{below}/cgroup")).splitlines()
        if "/tramontane_" in line
    ]
    return [
        f"{root}/{name}"
        for root, directories, _ in os.walk("/sys/fs/cgroup")
        for name in directories
        if name in named
    ]


async def test_a_start_that_the_launcher_did_not_survive_has_failed(bed: ProcessBed) -> None:
    """It made the instance's directory and was killed: asked again, it will not start it twice."""
    watching = Watching(bed)
    await serve(bed, watching, SECOND)
    (bed.directory / "state/instances" / FIRST).mkdir()
    await bed.runtime.start(bed.spec(FIRST, Behaviour.SERVES))
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert ended.reason == "killed"


async def test_killing_the_launcher_touches_nothing_that_runs(bed: ProcessBed) -> None:
    watching = Watching(bed)
    before = await serve(bed, watching)
    launcher = launcher_of(bed)
    os.kill(launcher, signal.SIGKILL)
    await wait_until(lambda: not is_alive(launcher), "the launcher is gone")
    await serve(bed, watching, SECOND)
    assert launcher_of(bed) != launcher
    after = {each.instance_id: each for each in await bed.runtime.inspect()}
    assert after[FIRST] == before
    result = await bed.runtime.execute(FIRST, ["echo", "well"], PATIENCE_S)
    assert result.stdout == b"well\n"
    await watching.close()


@pytest.mark.parametrize("whom", ["program", "bubblewrap", "first process"])
async def test_a_kill_is_seen_at_once(bed: ProcessBed, whom: str) -> None:
    watching = Watching(bed)
    ready = await serve(bed, watching)
    assert ready.pid
    (bubblewrap,) = [pid for pid in children(supervisor_of(bed, FIRST)) if name(pid) == "bwrap"]
    (first,) = children(bubblewrap)
    victim = {"program": ready.pid, "bubblewrap": bubblewrap, "first process": first}[whom]
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    took_s = time.monotonic() - began
    assert ended.reason == "killed"
    assert ended.exit_code == -signal.SIGKILL
    assert took_s < 2.0, "an event, not a poll"
    assert not is_alive(ready.pid)
    await watching.close()


async def test_daemons_end_with_their_instance(bed: ProcessBed) -> None:
    program = f"""
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            time.sleep(600)
        os._exit(0)
{SERVER}
"""
    watching = Watching(bed)
    await bed.runtime.start(bed.programs.python(FIRST, program))
    await watching.until(FIRST, ObservedStatus.READY)
    supervisor = supervisor_of(bed, FIRST)
    await wait_until(lambda: len(descendants(supervisor)) >= 6, "three daemons run")
    family = descendants(supervisor)
    await bed.runtime.stop(FIRST, PATIENCE_S)
    await watching.until(FIRST, ObservedStatus.EXITED)
    assert not any(map(is_alive, family))
    await watching.close()


async def test_a_shell_passes_the_stop_on(bed: ProcessBed) -> None:
    """``sh -c`` as main process must not keep SIGTERM from the program."""
    watching = Watching(bed)
    inner = "trap 'echo heard; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    spec = bed.programs.command(
        FIRST, "/bin/sh", "-c", f'/bin/bash -c "{inner}"; echo after', probe=Probe(grace_s=60)
    )
    await bed.runtime.start(spec)
    log = Path(spec.log_path)
    await wait_until(lambda: '"up"' in read(log), "it runs")
    await bed.runtime.stop(FIRST, PATIENCE_S)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert ended.exit_code == 0
    assert '"heard"' in read(log)
    await watching.close()


async def test_a_stop_that_is_repeated_signals_once(bed: ProcessBed) -> None:
    """A program that finishes its work takes a second SIGTERM for impatience."""
    program = """
import signal, threading
asked, finish = [], threading.Event()
def stop(number, frame):
    asked.append(number)
    print("asked", len(asked), flush=True)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda *_: finish.set())
print("up", flush=True)
while not finish.wait(0.02):
    pass
raise SystemExit(10 + len(asked))
"""
    watching = Watching(bed)
    probe = Probe(kind=ProbeKind.NONE, grace_s=0.1)
    spec = bed.programs.python(FIRST, program, probe=probe)
    await bed.runtime.start(spec)
    ready = await watching.until(FIRST, ObservedStatus.READY)
    assert ready.pid
    log = Path(spec.log_path)
    await wait_until(lambda: '"up"' in read(log), "it listens to signals")
    await bed.runtime.stop(FIRST, PATIENCE_S)
    await wait_until(lambda: '"asked 1"' in read(log), "it was asked")
    await bed.renew()
    await bed.runtime.stop(FIRST, PATIENCE_S)
    # Answered after the repeated stop was, so a second signal would have come before.
    os.kill(ready.pid, signal.SIGUSR1)
    await wait_until(lambda: status(bed, FIRST)["status"] == "exited", "it ended")
    assert status(bed, FIRST)["exit_code"] == 11
    await watching.close()


async def test_a_repeated_stop_can_only_hurry(bed: ProcessBed) -> None:
    watching = Watching(bed)
    await bed.runtime.start(bed.spec(FIRST, Behaviour.IGNORES_STOP))
    await watching.until(FIRST, ObservedStatus.READY)
    await bed.runtime.stop(FIRST, 600)
    await bed.runtime.stop(FIRST, 0)
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert (ended.reason, ended.exit_code) == ("stopped", -9)
    await watching.close()


async def test_fifty_instances_start_at_once_and_leave_nothing(bed: ProcessBed) -> None:
    ids = [InstanceId(f"ins_{number:016d}") for number in range(50)]
    watching = Watching(bed)
    async with asyncio.TaskGroup() as tasks:
        for instance_id in ids:
            probe = Probe(grace_s=60, interval_s=60)
            spec = bed.programs.python(instance_id, SERVER, probe=probe)
            tasks.create_task(bed.runtime.start(spec))
    async with asyncio.timeout(60):
        for instance_id in ids:
            ready = await watching.until(instance_id, ObservedStatus.READY, ObservedStatus.EXITED)
            assert ready.status is ObservedStatus.READY, ready
    assert len({each.pid for each in await bed.runtime.inspect()}) == 50
    groups = groups_of(bed)
    async with asyncio.TaskGroup() as tasks:
        for instance_id in ids:
            tasks.create_task(bed.runtime.remove(instance_id))
    await watching.close()
    await bed.process_runtime.end_launcher()
    await wait_until(lambda: not leftovers(bed.directory, groups), "nothing is left")


def files_with(directory: Path, text: str) -> list[Path]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


def leftovers(directory: Path, groups: list[str]) -> list[str]:
    """Return what instances of one test could leak: processes (not zombies), groups, mounts."""
    found = [group for group in groups if Path(group).exists()]
    found += [
        line for line in read(Path("/proc/self/mountinfo")).splitlines() if str(directory) in line
    ]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and is_alive(int(entry.name)):
            try:
                text = (entry / "cmdline").read_text()
            except OSError:
                continue
            if directory.name in text:
                found.append(f"{entry.name} {text}")
    return found


def groups_of(bed: ProcessBed) -> list[str]:
    files = (bed.directory / "state/instances").glob("*/status.json")
    return [path for file in files for _, path in json.loads(file.read_text())["groups"]]


def sizes_and_modes(directory: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in sorted(directory.iterdir())}
    return {name: (each.st_size, each.st_mode & 0o777) for name, each in found.items()}


async def test_output_is_stamped_bounded_and_private(bed: ProcessBed) -> None:
    flood = """
import sys
print("first", flush=True)
print("on stderr", file=sys.stderr, flush=True)
for number in range(30000):
    print(number, "x" * 1000)
print("y" * 40000)
print("last without newline", end="", flush=True)
"""
    bed.process_runtime = bed.make(log_bytes_max=1024**2, log_files_max=2)
    watching = Watching(bed)
    spec = bed.programs.python(FIRST, flood, probe=Probe(grace_s=60))
    await bed.runtime.start(spec)
    await watching.until(FIRST, ObservedStatus.EXITED)
    log = Path(spec.log_path)
    files = sizes_and_modes(log.parent)
    assert list(files) == [log.name, f"{log.name}.1", f"{log.name}.2"]
    assert all(size <= 1024**2 and mode == 0o600 for size, mode in files.values()), files
    records = [json.loads(line) for line in read(log).splitlines()]
    assert records[-1]["stream"] == "runtime"
    assert records[-2]["text"] == "last without newline"
    assert "".join(each["text"] for each in records[-5:-2]).endswith("y" * 40000)
    assert abs(records[-1]["at"] - time.time()) < 60
    await watching.close()


async def test_environment_is_nowhere_on_disk_or_in_arguments(bed: ProcessBed) -> None:
    watching = Watching(bed)
    spec = bed.programs.python(FIRST, SERVER, environment=(("TOKEN", "s3cr3t-v4lue"),))
    await bed.runtime.start(spec)
    await watching.until(FIRST, ObservedStatus.READY)
    shown = await bed.runtime.execute(FIRST, ["/bin/sh", "-c", 'echo "$TOKEN"'], PATIENCE_S)
    assert shown.stdout == b"s3cr3t-v4lue\n"
    assert not files_with(bed.directory, "s3cr3t-v4lue")
    for pid in (supervisor_of(bed, FIRST), *descendants(supervisor_of(bed, FIRST))):
        assert "s3cr3t-v4lue" not in read(Path(f"/proc/{pid}/cmdline"))
    await watching.close()


async def test_a_program_may_listen_on_a_socket(bed: ProcessBed) -> None:
    watching = Watching(bed)
    await bed.runtime.start(bed.programs.python(FIRST, SERVER, listen=Listen.UNIX))
    ready = await watching.until(FIRST, ObservedStatus.READY)
    assert ready.endpoint
    reader, writer = await asyncio.open_unix_connection(ready.endpoint)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    assert (await reader.read()).endswith(b"ok")
    writer.close()
    await watching.close()


ECHO = """
import os, socket, threading
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
def talk(connection):
    connection.sendall(b"hello ")
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    connection.sendall(b"got %d" % len(data))
    connection.close()
while True:
    threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()
"""


async def test_the_relay_keeps_half_closed_connections_and_all_bytes(bed: ProcessBed) -> None:
    watching = Watching(bed)
    probe = Probe(kind=ProbeKind.TCP, interval_s=60)
    await bed.runtime.start(bed.programs.python(FIRST, ECHO, probe=probe))
    ready = await watching.until(FIRST, ObservedStatus.READY)
    assert ready.endpoint

    async def talk(size: int) -> bytes:
        assert ready.endpoint
        reader, writer = await asyncio.open_unix_connection(ready.endpoint)
        assert await reader.readexactly(6) == b"hello "
        writer.write(b"x" * size)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    sizes = [0, 1, 65536, 8 * 1024**2, *range(100, 140)]
    async with asyncio.TaskGroup() as tasks:
        talks = [tasks.create_task(talk(size)) for size in sizes]
    assert [task.result() for task in talks] == [b"got %d" % size for size in sizes]
    await watching.close()


async def test_a_slow_reader_slows_the_program_down(bed: ProcessBed) -> None:
    """The relay holds nothing back: what is not read stays with the program."""
    program = """
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    connection, _ = server.accept()
    connection.settimeout(2)
    sent = 0
    try:
        while sent < 256 * 1024 ** 2:
            sent += connection.send(bytes(65536))
    except OSError:
        pass
    print("sent", sent, flush=True)
"""
    watching = Watching(bed)
    probe = Probe(kind=ProbeKind.TCP, interval_s=600)
    spec = bed.programs.python(FIRST, program, probe=probe)
    await bed.runtime.start(spec)
    ready = await watching.until(FIRST, ObservedStatus.READY)
    assert ready.endpoint
    log = Path(spec.log_path)
    await wait_until(lambda: read(log).count('"sent') == 1, "the probe's connection is over")
    _, writer = await asyncio.open_unix_connection(ready.endpoint)
    await wait_until(lambda: read(log).count('"sent') == 2, "the program gave up")
    last = [json.loads(line)["text"] for line in read(log).splitlines()][-1]
    assert int(last.split()[1]) < 32 * 1024**2
    writer.close()
    await watching.close()


async def test_the_way_out_leads_to_the_egress_proxy(bed: ProcessBed) -> None:
    path = str(bed.directory / "egress.sock")
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(proxy, path)
    program = """
import os, urllib.request
try:
    urllib.request.urlopen("https://example.com/", timeout=5)
except OSError as error:
    print("proxy said", error, flush=True)
"""
    watching = Watching(bed)
    spec = bed.programs.python(FIRST, program, probe=Probe(grace_s=60), egress_socket=path)
    await bed.runtime.start(spec)
    await watching.until(FIRST, ObservedStatus.EXITED)
    assert asked[0].startswith(b"CONNECT example.com:443 HTTP/1.")
    assert "403" in read(Path(spec.log_path))
    server.close()
    await watching.close()


async def test_bound_models_are_reached_without_a_proxy(bed: ProcessBed) -> None:
    path = str(bed.directory / "svc.models")
    asked: list[bytes] = []

    async def models(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere")
        writer.close()

    server = await asyncio.start_unix_server(models, path)
    program = """
import os, urllib.request
print(urllib.request.urlopen(os.environ["OPENAI_BASE_URL"] + "/models", timeout=5).read())
"""
    watching = Watching(bed)
    key = ("OPENAI_API_KEY", "tram_secret")
    spec = bed.programs.python(
        FIRST, program, probe=Probe(grace_s=60), environment=[key], models_socket=path
    )
    await bed.runtime.start(spec)
    await watching.until(FIRST, ObservedStatus.EXITED)
    assert asked[0].startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert "here" in read(Path(spec.log_path))
    files = [each for each in bed.directory.rglob("*") if each.is_file()]
    assert any(each.name == "spec.json" for each in files)
    assert not [each for each in files if b"tram_secret" in each.read_bytes()]
    server.close()
    await watching.close()


async def test_what_cannot_start_says_why(bed: ProcessBed) -> None:
    watching = Watching(bed)
    await bed.runtime.start(bed.programs.command(FIRST, "/no/such/program"))
    ended = await watching.until(FIRST, ObservedStatus.EXITED)
    assert ended.reason == "start_failed"
    assert "/no/such/program" in ended.message
    missing = Mount(source="/no/such/directory", target="/app")
    await bed.runtime.start(bed.programs.command(SECOND, "/bin/true", mounts=(missing,)))
    ended = await watching.until(SECOND, ObservedStatus.EXITED)
    assert ended.reason == "start_failed"
    assert "/no/such/directory" in ended.message
    await watching.close()


def make_artifact(directory: Path) -> Path:
    """Make a readable directory below one that only its owner can enter."""
    source = directory / "artifact"
    source.mkdir(mode=0o755)
    (source / "data").write_text("content")
    (source / "data").chmod(0o644)
    directory.chmod(0o700)
    return source


async def test_mounts_are_read_only_and_where_they_should_be(bed: ProcessBed) -> None:
    source = make_artifact(bed.directory)
    watching = Watching(bed)
    spec = bed.programs.python(FIRST, SERVER, mounts=(Mount(source=str(source), target="/app"),))
    await bed.runtime.start(spec)
    await watching.until(FIRST, ObservedStatus.READY)
    read = await bed.runtime.execute(FIRST, ["cat", "/app/data"], PATIENCE_S)
    assert read.stdout == b"content"
    write = await bed.runtime.execute(FIRST, ["touch", "/app/data", "/app/new"], PATIENCE_S)
    assert write.exit_code == 1
    await watching.close()


@pytest.mark.parametrize("target", ["/", "/proc/x", "app", "/app/../etc", "/etc"])
async def test_dangerous_mounts_are_refused(bed: ProcessBed, target: str) -> None:
    mount = Mount(source="/usr", target=target)
    with pytest.raises(InvalidRequest, match="mount target"):
        await bed.runtime.start(bed.programs.command(FIRST, "/bin/true", mounts=(mount,)))
    assert not await bed.runtime.inspect()


async def test_daemons_without_a_sandbox_end_too(directory: Path) -> None:
    bed = ProcessBed(directory, Isolation.NONE)
    program = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
{SERVER}
"""
    watching = Watching(bed)
    await bed.runtime.start(bed.programs.python(FIRST, program))
    await watching.until(FIRST, ObservedStatus.READY)
    supervisor = supervisor_of(bed, FIRST)
    await wait_until(lambda: len(descendants(supervisor)) >= 2, "the daemon runs")
    family = descendants(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    await watching.until(FIRST, ObservedStatus.EXITED)
    await wait_until(lambda: not any(map(is_alive, family)), "the daemon is gone")
    await watching.close()
    await bed.close()


def test_descriptors_of_the_control_plane_do_not_reach_programs(directory: Path) -> None:
    """Also under uvloop, whose child processes inherit what is not marked otherwise."""

    async def run() -> None:
        bed = ProcessBed(directory, Isolation.SANDBOX)
        watching = Watching(bed)
        await serve(bed, watching)
        listing = await bed.runtime.execute(FIRST, ["ls", "/proc/2/fd"], PATIENCE_S)
        assert set(listing.stdout.split()) == {b"0", b"1", b"2", b"3"}  # 3: where it listens
        await watching.close()
        await bed.close()

    leaked, other = os.pipe()
    os.set_inheritable(leaked, True)
    uvloop.run(run())
    os.close(leaked)
    os.close(other)


async def test_a_start_survives_the_death_of_those_that_wait(bed: ProcessBed) -> None:
    watching = Watching(bed)
    await serve(bed, watching)
    launcher = launcher_of(bed)
    await wait_until(lambda: len(children(launcher)) == 3, "the next supervisors wait")
    for pid in set(children(launcher)) - {supervisor_of(bed, FIRST)}:
        os.kill(pid, signal.SIGKILL)
    ready = await serve(bed, watching, SECOND)
    assert ready.pid
    assert is_alive(ready.pid)
    await watching.close()
