"""What a machine of some size gives to a build."""

from tramontane.processes.machine import make_build_resources

GIB = 1024**3


def test_a_build_leaves_room_for_what_runs() -> None:
    middle = make_build_resources(8 * GIB, 4.0)
    assert (middle.memory_bytes, middle.cpus) == (4 * GIB, 3.0)
    large = make_build_resources(256 * GIB, 64.0)
    assert (large.memory_bytes, large.cpus) == (8 * GIB, 63.0)


def test_a_small_machine_builds_too() -> None:
    small = make_build_resources(GIB, 1.0)
    assert (small.memory_bytes, small.cpus) == (GIB, 1.0)
