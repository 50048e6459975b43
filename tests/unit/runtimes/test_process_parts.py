"""The small decisions of the process runtime, each without a process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.runtimes.test_sandbox import spec
from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process import examination
from tramontane.runtimes.process.cgroups import Controller
from tramontane.runtimes.process.doors import judge
from tramontane.runtimes.process.endings import exit_code, judge_exit
from tramontane.runtimes.process.examination import Powers, describe
from tramontane.runtimes.process.launching import resource_limits
from tramontane.runtimes.process.layout import (
    Layout,
    check_run_directory,
    forget_removed,
    remove_instance,
)
from tramontane.runtimes.process.logs import LineProtocol, LogFile
from tramontane.runtimes.process.processes import stop_targets
from tramontane.runtimes.process.protocol import (
    Isolation,
    Options,
    observation_from_json,
    observation_to_json,
    options_from_text,
    options_to_text,
    spec_from_json,
    spec_to_file,
    spec_to_json,
)
from tramontane.runtimes.process.sandbox import HostTree
from tramontane.runtimes.process.supervisor import probe_pause_s
from tramontane.runtimes.process.zygote import launcher_environment
from tramontane.testing.clocks import FakeClock

POWERS = Powers(
    isolation=Isolation.SANDBOX,
    privileged=False,
    bubblewrap="/usr/bin/bwrap",
    places=(),
    tree=HostTree(binds=(), links=()),
    seccomp=b"x",
    trouble="",
)


def test_specs_survive_the_socket() -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec())))) == spec()


def test_values_of_the_environment_never_reach_the_disk() -> None:
    secret = replace(spec(), environment=(("TOKEN", "s3cr3t"),))
    written = json.dumps(spec_to_file(secret))
    assert "TOKEN" in written
    assert "s3cr3t" not in written


def test_observations_survive_and_newer_fields_are_ignored() -> None:
    observation = Observation(
        instance_id=InstanceId("ins_1"), status=ObservedStatus.EXITED, exit_code=-9, reason="killed"
    )
    value = {**observation_to_json(observation), "field_of_the_future": 1}
    assert observation_from_json(value) == observation


def test_options_survive_the_command_line() -> None:
    options = Options(
        state_directory="/s",
        run_directory="/r",
        isolation=Isolation.NONE,
        uid_base=1,
        uid_count=2,
        log_bytes_max=3,
        log_files_max=4,
        idle_s=5.0,
        release="6",
    )
    assert options_from_text(options_to_text(options)) == options


def test_the_launcher_inherits_nothing_of_the_platforms_environment() -> None:
    environment = launcher_environment(["", "/a", "/b"])
    assert environment["PYTHONPATH"] == "/a:/b"
    assert set(environment) == {"PATH", "PYTHONPATH", "LANG", "UV_USE_IO_URING"}


def test_long_run_directories_are_refused_with_a_way_out() -> None:
    check_run_directory(Path("/run/user/1000/tramontane"))
    with pytest.raises(InvalidRequest, match="bytes too long"):
        check_run_directory(Path("/" + "x" * 80))


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 65, "a\nb"])
def test_ids_cannot_leave_their_directory(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        Layout(state=tmp_path, run=tmp_path).instance(InstanceId(name))


@pytest.mark.parametrize(
    ("wait_status", "code"),
    [(0, 0), (3 << 8, 3), (9, -9), ((128 + 15) << 8, -15), (128 << 8, 128), (255 << 8, 255)],
)
def test_exit_codes_are_negative_for_signals(wait_status: int, code: int) -> None:
    assert exit_code(wait_status) == code


def test_endings_say_what_happened() -> None:
    tail = ["loading", "no such table"]
    early = judge_exit(1, was_ready=False, tail=tail)
    assert early.reason == "exited"
    assert early.message == (
        "exited with code 1 before it was ready; last output: loading | no such table"
    )
    assert judge_exit(0, was_ready=True, tail=tail).message == "exited with code 0"
    assert judge_exit(-9, was_ready=True, tail=[]).reason == "killed"
    assert "signal 11" in judge_exit(-11, was_ready=True, tail=[]).message
    refused = judge_exit(1, was_ready=False, tail=["bwrap: execvp nope: No such file"])
    assert refused.reason == "start_failed"


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.0 399 Odd", True),
        (b"HTTP/1.1 404 Not Found\r\n", False),
        (b"HTTP/1.1 500\r\n", False),
        (b"SSH-2.0-OpenSSH\r\n", False),
        (b"HTTP/1.1 abc\r\n", False),
        (b"", False),
    ],
)
def test_answers_to_probes_are_judged(answer: bytes, healthy: bool) -> None:
    assert (judge(answer) == "") is healthy


def test_probes_slow_down_as_a_program_takes_longer() -> None:
    pauses = [probe_pause_s(elapsed_s) for elapsed_s in (0, 0.1, 0.5, 1, 10, 600)]
    assert pauses == pytest.approx([0.001, 0.002, 0.01, 0.02, 0.1, 0.1])


@pytest.mark.parametrize(
    ("deaf", "below", "targets"),
    [
        (set[int](), {1: [2]}, [1]),
        ({1}, {1: [2]}, [2]),
        ({1}, {1: []}, [1]),
        ({1}, {1: [2, 3]}, [2, 3]),
        ({1, 2}, {1: [2], 2: [3]}, [3]),
    ],
)
def test_deaf_shells_are_passed_over_when_stopping(
    deaf: set[int], below: dict[int, list[int]], targets: list[int]
) -> None:
    assert stop_targets(1, deaf, below) == targets


def test_limits_fill_in_for_missing_control_groups() -> None:
    none_held = resource_limits(Resources(), frozenset(), sandboxed=True)
    all_held = resource_limits(Resources(), frozenset(Controller), sandboxed=True)
    plain = resource_limits(Resources(), frozenset(), sandboxed=False)
    assert len(none_held) == len(all_held) + 2
    assert len(plain) == len(none_held) - 1


def test_privilege_needs_more_than_the_user_id() -> None:
    full = "Name:\tx\nCapEff:\t000001ffffffffff\n"
    container = "Name:\tx\nCapEff:\t00000000a80425fb\n"
    assert examination.is_privileged(full, 0)
    assert not examination.is_privileged(full, 1000)
    assert not examination.is_privileged(container, 0)


def test_capabilities_explain_what_is_missing() -> None:
    found = {each.name: each for each in describe(replace(POWERS, trouble="refused; do this"))}
    assert not found["user namespaces"].offered
    assert found["user namespaces"].required
    assert "do this" in found["user namespaces"].detail
    assert found["memory limit"].offered
    assert "measures" in found["memory limit"].detail
    assert not found["cpu limit"].offered
    assert "Delegate=yes" in found["cpu limit"].detail
    none = describe(replace(POWERS, isolation=Isolation.NONE))
    assert none[0].name == "isolation"
    assert not none[0].offered


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_logs_are_cut_into_lines_and_rotated(tmp_path: Path) -> None:
    path = tmp_path / "a" / "log"
    clock = FakeClock(now=1_800_000_000.25)
    log = LogFile(path, bytes_max=200, files_max=2, clock=clock)
    out = LineProtocol("stdout", log)
    out.data_received(b"one\ntw")
    out.data_received(b"o\n\xff\nthree")
    assert [line["text"] for line in lines(path)] == ["one", "two", "\ufffd"]
    assert lines(path)[0] == {"at": 1_800_000_000.25, "stream": "stdout", "text": "one"}
    out.connection_lost(None)
    assert out.ended.is_set()
    assert log.tail(2) == ["\ufffd", "three"]
    for number in range(20):
        log.write("stderr", [b"%d" % number])
    log.close()
    assert sorted(file.name for file in path.parent.iterdir()) == ["log", "log.1", "log.2"]
    assert lines(path)[-1]["text"] == "19"


async def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = LogFile(path, bytes_max=10**7, files_max=1, clock=FakeClock())
    out = LineProtocol("stdout", log)
    for _ in range(10):
        out.data_received(b"x" * 10_000)
    out.connection_lost(None)
    log.close()
    texts = [str(line["text"]) for line in lines(path)]
    assert "".join(texts) == "x" * 100_000
    assert max(map(len, texts)) == 16 * 1024


def test_removed_ids_are_remembered_for_a_month(tmp_path: Path) -> None:
    layout = Layout(state=tmp_path / "s", run=tmp_path / "r")
    layout.ensure()
    paths = layout.instance(InstanceId("ins_1"))
    paths.state.mkdir()
    remove_instance(layout, paths)
    mark = layout.ended / "ins_1"
    assert not paths.state.exists()
    written = mark.stat().st_mtime
    forget_removed(layout, written + 29 * 86_400)
    assert mark.exists()
    forget_removed(layout, written + 31 * 86_400)
    assert not mark.exists()
