"""Attempts to get out of a build step, or to take more than its share of the machine.

Whoever may deploy says what a build runs, and every package it installs may say more.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.beds import ProcessBed
from tests.escape.attacks import KERNEL, NETWORK, PROCESSES, READS, WAY_OUT
from tests.escape.test_attacks import all_attacks, refusals
from tests.integration.builders.running import Bench
from tramontane.base.errors import BuildFailed
from tramontane.builders.settings import Isolation
from tramontane.domain.definition import BuildOptions, Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import ObservedStatus
from tramontane.domain.route import EgressBounds
from tramontane.processes.network import read_own_networks
from tramontane.testing.conformance import Watching

pytestmark = pytest.mark.timeout(180)

INSTANCE = {
    "the control socket of an instance": """
def attack():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(secrets['control'])
        return True
""",
}
GROUPS = {
    "reads": {
        name: READS[name]
        for name in (
            "shadow",
            "a private file of the host",
            "a world-readable file of the host",
            "state of the platform",
        )
    },
    "processes": {
        name: PROCESSES[name] for name in ("signal the host's processes", "see other processes")
    },
    "network": {
        **{
            name: NETWORK[name]
            for name in (
                "a service of the host by loopback",
                "a service of the host by loopback, IPv6",
                "metadata of the cloud",
                "the internet",
                "a name server",
                "another interface",
                "raw sockets",
                "the hypervisor",
                "bluetooth, crypto and other families",
                "netlink other than routes",
                "abstract sockets of the host",
            )
        },
        **INSTANCE,
    },
    "kernel": {name: KERNEL[name] for name in KERNEL if name != "write to the read-only root"},
    "the way out": WAY_OUT,
}
REAL = {
    "reads": ("a private file of the host", "a world-readable file of the host"),
    "processes": ("signal the host's processes", "see other processes"),
    "network": (
        "a service of the host by loopback",
        "abstract sockets of the host",
        "the control socket of an instance",
    ),
}
"""Attacks that a build without a sandbox carries out: it may do what the platform's user may."""


@pytest.fixture
def bench(directory: Path) -> Bench:
    made = Bench(directory)
    if made.isolation is Isolation.NONE:
        pytest.skip("this machine allows no sandbox for builds")
    made.bounds = EgressBounds(own=read_own_networks())
    return made


async def attack(bench: Bench, attacks: dict[str, str], secrets: dict[str, Any]) -> str:
    """Have a build carry out these attacks; return what they printed."""
    source = bench.root / "source"
    source.mkdir(exist_ok=True)
    (source / "main.py").write_text("")
    (source / "attack.py").write_text(all_attacks(attacks))
    (source / "secrets.json").write_text(json.dumps(secrets))
    command = 'python -I -S attack.py "$(cat secrets.json)"'
    await bench.build(source, BuildOptions(language="python", command=command))
    begun = bench.lines.index("run the build command …") + 1
    # The proxy tells what was tried, between the lines of who tried it.
    printed = [line for line in bench.lines[begun:] if not line.startswith("network: ")]
    return "\n".join(printed[: len(attacks)])


@pytest.fixture
async def neighbour(bed: ProcessBed, outside: dict[str, Any]) -> InstanceId:
    spec = bed.programs.command("ins_neighbour", "/bin/sleep", "600")
    await bed.runtime.start(spec)
    watching = Watching(bed)
    await watching.until(spec.id, ObservedStatus.STARTING)
    await watching.close()
    return spec.id


@pytest.mark.parametrize("group", GROUPS)
async def test_a_build_cannot_get_out(
    bench: Bench, outside: dict[str, Any], neighbour: InstanceId, group: str
) -> None:
    refusals(await attack(bench, GROUPS[group], outside), list(GROUPS[group]))


async def test_a_build_writes_to_nothing_but_its_own(bench: Bench, outside: dict[str, Any]) -> None:
    """Least of all to what the kernel would run as root, such as its handler of core dumps."""
    name = "write to the read-only root"
    own = {name: KERNEL[name].replace("'/proc/1/oom_score_adj'", "'/proc/sys/kernel/modprobe'")}
    refusals(await attack(bench, own, outside), [name])


async def test_a_build_is_nobody_on_this_machine(bench: Bench, outside: dict[str, Any]) -> None:
    asking = """
def attack():
    made = os.stat('attack.py')
    return [os.getuid(), made.st_uid, pathlib.Path.home().owner(), os.stat('/usr').st_uid]
"""
    printed = await attack(bench, {"": asking}, outside)
    assert printed == "SUCCEEDED: [1000, 1000, 'build', 65534]"


@pytest.mark.parametrize("group", REAL)
async def test_the_attacks_are_real(
    bench: Bench, outside: dict[str, Any], neighbour: InstanceId, group: str
) -> None:
    bench.isolation = Isolation.NONE
    harmless = {
        name: GROUPS[group][name].replace(
            "os.kill(secrets['victim'], 9)", "os.kill(secrets['victim'], 0)"
        )
        for name in REAL[group]
    }
    printed = await attack(bench, harmless, outside)
    results = dict(zip(harmless, printed.splitlines(), strict=True))
    assert all(line.startswith("SUCCEEDED") for line in results.values()), results


async def test_the_way_out_tells_where_it_did_not_lead(
    bench: Bench, outside: dict[str, Any]
) -> None:
    await attack(bench, WAY_OUT, outside)
    here = f"127.0.0.1:{outside['port']}"
    assert f"network: denied {here}: it is this machine's own address" in bench.lines


async def test_a_package_source_on_this_machine_is_reached_and_the_api_is_not(
    bench: Bench, outside: dict[str, Any]
) -> None:
    """What the operator's own settings name is meant to be reached, but for one thing."""
    name = "the host as 127.0.0.1"
    bench.environment = {"UV_DEFAULT_INDEX": f"http://127.0.0.1:{outside['port']}/simple"}
    assert (await attack(bench, {name: WAY_OUT[name]}, outside)).startswith("SUCCEEDED")
    bench.bounds = EgressBounds(own=bench.bounds.own, api_port=outside["port"])
    secrets = {**outside, "again": True}  # another source, so that it is built again
    bench.lines.clear()
    refusals(await attack(bench, {name: WAY_OUT[name]}, secrets), [name])
    assert any("the platform's own API" in line for line in bench.lines)


# --- more than its share -----------------------------------------------------------------------

SMALL = Resources(memory_bytes=256 * 1024**2, cpus=1.0, processes_max=64)
MEMORY_BOMB = """python -c "
taken = []
while True:
    taken.append(bytearray(4 * 1024 * 1024))
" """
FILL = """
head -c 400M /dev/zero > /dev/shm/fill
for place in / /dev; do head -c 1M /dev/zero > $place/fill; done
exit 1
"""
FORK_BOMB = """python -c "
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError as error:
    print('made', made, error)
" """


async def fail(bench: Bench, command: str) -> BuildFailed:
    source = bench.root / "source"
    source.mkdir()
    (source / "main.py").write_text("")
    with pytest.raises(BuildFailed) as failure:
        await bench.build(source, BuildOptions(language="python", command=command))
    assert bench.leftovers() == []
    return failure.value


async def test_memory_is_limited(bench: Bench) -> None:
    bench.resources = SMALL
    error = await fail(bench, MEMORY_BOMB)
    assert error.message == (
        "the step 'run the build command' used more than the 256 MiB of memory that a build may "
        "use; have it do less at once"
    )


async def test_memory_that_looks_like_files_is_limited_too(bench: Bench) -> None:
    await fail(bench, FILL)
    said = "\n".join(bench.lines)
    assert "No space left on device" in said
    assert said.count("Read-only file system") == 2


async def test_processes_are_limited(bench: Bench) -> None:
    bench.resources = SMALL
    await fail(bench, f"{FORK_BOMB}; exit 1")
    made = next(line for line in bench.lines if line.startswith("made "))
    assert 8 < int(made.split()[1]) < SMALL.processes_max, made


async def test_time_is_limited(bench: Bench) -> None:
    bench.step_timeout_s = 1.0
    error = await fail(bench, "sleep 600")
    assert error.message == (
        "the step 'run the build command' did not end within 1 s, which is as long as a step of a "
        "build may take"
    )


async def test_output_is_limited(bench: Bench) -> None:
    error = await fail(bench, "yes a line that goes on and on")
    assert "printed more than 32 MiB" in error.message


def test_nothing_is_left_running_and_no_control_group(bench: Bench) -> None:
    bench.step_timeout_s = 1.0
    mark = f"tramontane-{bench.root.name}"
    nap = f"python -c 'import time; time.sleep(600)' {mark}"
    asyncio.run(fail(bench, f"(setsid {nap} &); {nap}"))
    assert not list(processes_with(mark))
    assert not list(Path("/sys/fs/cgroup").glob("**/tramontane_build_*"))


def processes_with(mark: str) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes():
                yield path.parent.name
