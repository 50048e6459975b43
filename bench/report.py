"""What a benchmark found: printed for people, kept as JSON.

A benchmark makes one ``Report`` of ``Side``s and ``Ratio``s. Ratios are taken within a round, where
both sides ran next to each other, and reported as their median and spread: what disturbs a shared
machine disturbs both sides of a round alike.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of those compared: who it is, in which version, and what was measured of it."""

    name: str
    version: str
    values: Mapping[str, float]
    """Measured values by name; the unit is the name's last word."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One comparison: a value per round, and what was aimed for."""

    what: str
    rounds: tuple[float, ...]
    goal: str = ""
    unit: str = ""
    """Empty for a ratio proper; differences and plain values have a unit."""

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.rounds)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one benchmark has to say."""

    name: str
    sides: Sequence[Side]
    ratios: Sequence[Ratio]
    """The first one without a unit is the benchmark's ``ratio``."""
    notes: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])
    plots: Mapping[str, str] = field(default_factory=dict[str, str])
    """SVG texts by name."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values are (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(latencies_ns: Sequence[float], prefix: str = "") -> dict[str, float]:
    """Return p50 and p99 of latencies, ready to be a side's values."""
    return {
        f"{prefix}p50 ms": percentile(latencies_ns, 0.50) / 1e6,
        f"{prefix}p99 ms": percentile(latencies_ns, 0.99) / 1e6,
    }


def ours(parts: str = "") -> str:
    """Return the product's version, with the versions of named parts of it."""
    more = [f"{part} {version(part)}" for part in parts.split()]
    return ", ".join([version("tramontane"), *more])


def render(report: Report) -> str:
    """Return the report as text."""
    width = max((len(side.name) for side in report.sides), default=0)
    lines = [report.name]
    for side in report.sides:
        values = "   ".join(_value(key, value) for key, value in side.values.items())
        lines.append(f"  {side.name:<{width}}  {values}   ({side.version})")
    for ratio in report.ratios:
        low, high = min(ratio.rounds), max(ratio.rounds)
        spread = f"{_number(low)} to {_number(high)} over {len(ratio.rounds)} rounds"
        goal = f"; goal {ratio.goal}" if ratio.goal else ""
        unit = f" {ratio.unit}" if ratio.unit else ""
        label = f"{ratio.what}: " if ratio.unit else "ratio: "
        what = "" if ratio.unit else f"{ratio.what}; "
        spread = spread if len(ratio.rounds) > 1 else "one measurement"
        lines.append(f"  {label}{_number(ratio.median)}{unit}  ({what}{spread}{goal})")
    lines += [f"  {note}" for note in report.notes]
    return "\n".join(lines)


def keep(report: Report, *, summary: bool) -> Path:
    """Write the raw result, and with ``summary`` also the one that is committed."""
    at = time.strftime("%Y-%m-%dT%H-%M-%SZ", time.gmtime())
    found = {
        "name": report.name,
        "at": at,
        "machine": describe_machine(),
        "sides": [asdict(side) for side in report.sides],
        "ratios": [{"median": ratio.median, **asdict(ratio)} for ratio in report.ratios],
        "notes": list(report.notes),
    }
    raw = RESULTS / "raw" / f"{at}-{report.name}.json"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_text(json.dumps({**found, "raw": report.raw}, indent=1) + "\n")
    if summary:
        text = json.dumps(found, indent=2, default=float) + "\n"
        (RESULTS / f"{report.name}.json").write_text(text)
    for name, svg in report.plots.items():
        at_once = raw.with_name(f"{raw.stem}-{name}.svg")
        plot = RESULTS / f"{report.name}-{name}.svg" if summary else at_once
        plot.write_text(svg)
    return raw


def describe_machine() -> dict[str, object]:
    """Return what a reader of a result needs to know about where it was taken."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    model = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
    }


def _value(key: str, value: float) -> str:
    name, _, unit = key.rpartition(" ")
    return f"{name} {_number(value)} {unit}".strip()


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
