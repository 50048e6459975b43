"""A proxy under load: what it carried, and what that cost it. Used by both gateway benchmarks."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.load import Load, Sample, Target
from bench.machine import read_cpu_s
from bench.report import Ratio


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """One side: its processes and where it listens."""

    pid: int
    target: Target
    more: tuple[int, ...] = ()
    """Other processes that a request passes."""

    def read_cpu_s(self) -> float:
        """Return the processor time that all of them have used so far."""
        return sum(read_cpu_s(pid) for pid in (self.pid, *self.more))


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One measurement of one proxy."""

    sample: Sample
    per_cpu_s: float
    """Requests per second of processor time that the proxy used."""


def saturate(
    load: Load, proxy: Proxy, *, connections: int, seconds: float
) -> Callable[[], Awaitable[Slice]]:
    """Return the measurement of one slice of a closed loop."""

    async def measure() -> Slice:
        before = proxy.read_cpu_s()
        sample = await load.saturate(proxy.target, connections=connections, seconds=seconds)
        used_s = max(proxy.read_cpu_s() - before, 0.01)
        return Slice(sample=sample, per_cpu_s=sample.requests / used_s)

    return measure


def pace(
    load: Load, target: Target, *, rate: float, seconds: float
) -> Callable[[], Awaitable[Sample]]:
    """Return the measurement of one slice at a fixed rate."""
    return lambda: load.pace(target, rate=rate, seconds=seconds)


def compare_throughput(
    what: str, ours: Sequence[Slice], theirs: Sequence[Slice], goal: str = ""
) -> Ratio:
    """Return ours over theirs in requests per second."""
    rounds = zip(ours, theirs, strict=True)
    return Ratio(
        what=what, rounds=tuple(a.sample.per_s / b.sample.per_s for a, b in rounds), goal=goal
    )


def compare_cost(what: str, ours: Sequence[Slice], theirs: Sequence[Slice]) -> Ratio:
    """Return ours over theirs in requests per second of processor time."""
    rounds = zip(ours, theirs, strict=True)
    return Ratio(what=what, rounds=tuple(a.per_cpu_s / b.per_cpu_s for a, b in rounds))


def keep_slices(found: Mapping[str, Sequence[Slice]]) -> dict[str, list[dict[str, float]]]:
    """Return the raw numbers of every slice."""
    return {
        name: [{"per_s": each.sample.per_s, "per_cpu_s": each.per_cpu_s} for each in slices]
        for name, slices in found.items()
    }
