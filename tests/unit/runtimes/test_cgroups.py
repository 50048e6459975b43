"""Where control groups are found and what is written into them."""

from pathlib import Path

from tramontane.domain.definition import Resources
from tramontane.runtimes.process.cgroups import (
    Controller,
    Group,
    Place,
    group_of,
    limits,
    parse_hierarchies,
)

HYBRID_CGROUP = """\
9:name=systemd:/
8:pids:/
4:memory:/session/b2
1:cpu,cpuacct:/
0::/
"""
HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED_CGROUP = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/tram.service\n"
UNIFIED_MOUNTS = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
CONTAINER_CGROUP = "0::/docker/abc/inner\n"
CONTAINER_MOUNTS = "29 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n"


def test_version_1_is_found_per_controller() -> None:
    found = {
        (each.version, controller): each.own
        for each in parse_hierarchies(HYBRID_CGROUP, HYBRID_MOUNTS)
        for controller in each.controllers or {"unified"}
    }
    assert found == {
        (1, "pids"): Path("/sys/fs/cgroup/pids"),
        (1, "memory"): Path("/sys/fs/cgroup/memory/session/b2"),
        (1, "cpu"): Path("/sys/fs/cgroup/cpu,cpuacct"),
        (1, "cpuacct"): Path("/sys/fs/cgroup/cpu,cpuacct"),
        (2, "unified"): Path("/sys/fs/cgroup/unified"),
    }


def test_version_2_is_found_below_a_user() -> None:
    (only,) = parse_hierarchies(UNIFIED_CGROUP, UNIFIED_MOUNTS)
    assert only.version == 2
    assert only.own == Path(
        "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/tram.service"
    )


def test_a_container_sees_its_own_part() -> None:
    (only,) = parse_hierarchies(CONTAINER_CGROUP, CONTAINER_MOUNTS)
    assert (only.top, only.own) == (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/inner"))


def test_limits_are_written_as_each_version_wants_them() -> None:
    resources = Resources(memory_bytes=1024, cpus=0.5, processes_max=7)
    everything = frozenset(Controller)
    assert limits(2, everything, resources) == {
        "memory.max": "1024",
        "pids.max": "7",
        "cpu.max": "50000 100000",
    }
    assert limits(1, everything, resources) == {
        "memory.limit_in_bytes": "1024",
        "pids.max": "7",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "50000",
    }
    assert limits(2, frozenset({Controller.PIDS}), resources) == {"pids.max": "7"}


def test_kills_for_memory_are_counted_in_both_versions(tmp_path: Path) -> None:
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    (tmp_path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert Group(directories=((2, tmp_path),)).out_of_memory_kills() == 2
    assert Group(directories=((1, tmp_path),)).out_of_memory_kills() == 5
    assert Group(directories=((2, tmp_path / "gone"),)).out_of_memory_kills() == 0


def test_a_group_has_a_directory_in_each_place() -> None:
    places = (
        Place(version=1, directory=Path("/m"), controllers=frozenset({Controller.MEMORY})),
        Place(version=1, directory=Path("/p"), controllers=frozenset({Controller.PIDS})),
    )
    group = group_of(places, "tramontane_1")
    assert group.directories == ((1, Path("/m/tramontane_1")), (1, Path("/p/tramontane_1")))
    assert group.controllers == {Controller.MEMORY, Controller.PIDS}
