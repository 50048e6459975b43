"""What a machine gives to a build, and what is kept of what was said of it."""

from tramontane.processes.machine import cost_facts, make_build_resources, make_cell

GIB = 1024**3


def test_a_build_leaves_room_for_what_runs() -> None:
    middle = make_build_resources(8 * GIB, 4.0)
    assert (middle.memory_bytes, middle.cpus) == (4 * GIB, 3.0)
    large = make_build_resources(256 * GIB, 64.0)
    assert (large.memory_bytes, large.cpus) == (8 * GIB, 63.0)


def test_a_small_machine_builds_too() -> None:
    small = make_build_resources(GIB, 1.0)
    assert (small.memory_bytes, small.cpus) == (GIB, 1.0)


def test_what_an_hour_costs_is_kept_until_it_is_taken_back() -> None:
    said = make_cell(None, "process", "sandbox", cost_facts("0.12", [], 7.0))
    assert said.hourly_cost == 120_000_000
    kept = make_cell(None, "process", "sandbox", cost_facts(None, [said], 8.0))
    assert kept.facts == said.facts
    assert make_cell(None, "process", "sandbox", cost_facts("0", [said], 9.0)).hourly_cost == 0
    assert make_cell(None, "process", "sandbox").hourly_cost == 0
