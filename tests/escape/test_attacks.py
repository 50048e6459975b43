"""Real attempts to get out of a sandbox. All must be refused, to the program and to ``exec``."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.beds import ProcessBed
from tests.conformance.programs import SERVER
from tests.escape.attacks import HARNESS, KERNEL, NETWORK, PROCESSES, READS
from tramontane.domain.definition import Probe
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import ObservedStatus
from tramontane.runtimes.process.protocol import Isolation
from tramontane.runtimes.runtime import InstanceSpec
from tramontane.testing.conformance import Watching

GROUPS = {"reads": READS, "processes": PROCESSES, "network": NETWORK, "kernel": KERNEL}


def refusals(printed: str, names: list[str]) -> None:
    results = dict(zip(names, printed.splitlines(), strict=False))
    missing = [name for name in names if name not in results]
    assert not missing, f"no answer: {missing}\n{printed[-2000:]}"
    open_doors = {name: line for name, line in results.items() if not line.startswith("refused")}
    assert not open_doors, open_doors


def printed_by(spec: InstanceSpec) -> list[str]:
    records = [json.loads(line) for line in Path(spec.log_path).read_text().splitlines()]
    return [record["text"] for record in records if record["stream"] == "stdout"]


def all_attacks(attacks: dict[str, str]) -> str:
    """Return a program that tries each in a process of its own, one line of result for each."""
    return f"""
import json, subprocess, sys
for source in {json.dumps(list(attacks.values()))}:
    harness = {HARNESS!r}.replace("{{attack}}", source)
    result = subprocess.run([sys.executable, "-I", "-S", "-c", harness, sys.argv[1]],
        capture_output=True, text=True)
    lines = (result.stdout.strip() or "NO RESULT " + result.stderr[-300:]).splitlines()
    print(lines[-1] if result.returncode == 0 else f"refused: died of {{result.returncode}}",
        flush=True)
"""


@pytest.mark.parametrize("group", GROUPS)
async def test_a_program_cannot_get_out(
    bed: ProcessBed, outside: dict[str, Any], neighbour: InstanceId, group: str
) -> None:
    attacks = GROUPS[group]
    watching = Watching(bed)
    await watching.until(neighbour, ObservedStatus.READY)
    spec = bed.programs.python(
        "ins_attacker", all_attacks(attacks), json.dumps(outside), probe=Probe(grace_s=60)
    )
    await bed.runtime.start(spec)
    ended = await watching.until(spec.id, ObservedStatus.EXITED)
    assert ended.exit_code == 0, ended
    refusals("\n".join(printed_by(spec)), list(attacks))
    still = [each for each in await bed.runtime.inspect() if each.instance_id == neighbour]
    assert still[0].status is ObservedStatus.READY
    await watching.close()


@pytest.mark.parametrize("group", GROUPS)
async def test_a_command_run_inside_cannot_get_out(
    bed: ProcessBed, outside: dict[str, Any], neighbour: InstanceId, group: str
) -> None:
    attacks = GROUPS[group]
    watching = Watching(bed)
    await watching.until(neighbour, ObservedStatus.READY)
    spec = bed.programs.python("ins_attacker", SERVER)
    await bed.runtime.start(spec)
    await watching.until(spec.id, ObservedStatus.READY)
    python = bed.programs.interpreter.path
    source = all_attacks(attacks)
    result = await bed.runtime.execute(
        spec.id, [python, "-I", "-S", "-c", source, json.dumps(outside)], 60
    )
    assert result.exit_code == 0, result
    refusals(result.stdout.decode(), list(attacks))
    await watching.close()


REAL = {
    "reads": {"a private file of the host", "a world-readable file of the host"},
    "processes": {"signal the host's processes", "see other processes"},
    "network": {"a service of the host by loopback", "abstract sockets of the host"},
    "kernel": {"a new user namespace"},
}
"""Attacks that any ordinary process can do: without a sandbox they must work."""


@pytest.mark.parametrize("group", GROUPS)
async def test_the_attacks_are_real(directory: Path, outside: dict[str, Any], group: str) -> None:
    """Without a sandbox the same programs succeed, or they would prove nothing."""
    bed = ProcessBed(directory, Isolation.NONE)
    attacks = {name: GROUPS[group][name] for name in sorted(REAL[group])}
    harmless = {
        name: source.replace("os.kill(secrets['victim'], 9)", "os.kill(secrets['victim'], 0)")
        for name, source in attacks.items()
    }
    spec = bed.programs.python(
        "ins_attacker", all_attacks(harmless), json.dumps(outside), probe=Probe(grace_s=60)
    )
    watching = Watching(bed)
    await bed.runtime.start(spec)
    await watching.until(spec.id, ObservedStatus.EXITED)
    results = dict(zip(attacks, printed_by(spec), strict=True))
    assert all(line.startswith("SUCCEEDED") for line in results.values()), results
    await watching.close()
    await bed.close()
