"""Processes and cores: who runs where, and what it cost them.

On two cores or more the proxies run on one set of cores and load generator and backend on the
other, so that the proxy is what saturates and both proxies meet the same neighbours.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Cores:
    """The division of the machine; None where there is nothing to divide."""

    proxy: tuple[int, ...] | None
    load: tuple[int, ...] | None

    @property
    def workers(self) -> int:
        """Worker threads of each proxy."""
        return len(self.proxy or (0,))

    @property
    def load_workers(self) -> int:
        """Processes that make load, and as many threads of the backend."""
        return max(1, len(self.load or ()) // 2)


def divide_cores() -> Cores:
    """Give the first half of the cores to proxies, at most four, and the rest to load."""
    cores = sorted(os.sched_getaffinity(0))
    half = min(4, len(cores) // 2)
    if not half:
        return Cores(proxy=None, load=None)
    return Cores(proxy=tuple(cores[:half]), load=tuple(cores[half:]))


def pin(pid: int, cores: Sequence[int] | None) -> None:
    """Bind all threads of a process to cores."""
    for task in Path(f"/proc/{pid}/task").iterdir() if cores else ():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cores or ())


def read_cpu_s(pid: int) -> float:
    """Return the processor time a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


async def interleave(
    sides: Mapping[str, Callable[[], Awaitable[Result]]], rounds: int
) -> dict[str, list[Result]]:
    """Measure all sides, round after round, every other round in reverse order."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides)
        for name in order if number % 2 == 0 else reversed(order):
            results[name].append(await sides[name]())
    return results
