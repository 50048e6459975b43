"""What is compared: scenarios, and every policy with the settings it is tried at.

The settings of rivals are a grid around what their documentation gives; which of them were best is
found out on the reported traces themselves, in their favour. Ours has one setting, its default,
which was fixed on ``TUNING_SEEDS``; the others only draw its frontier.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path

from bench.scaling.engine import Engine, Request
from bench.scaling.ours import Ours
from bench.scaling.rivals import Averaging, Keda, KnativePodAutoscaler
from bench.scaling.simulator import INSTANCES_MAX, Orders, Policy, View
from bench.scaling.traces import (
    CHAT,
    CODE,
    REASONING,
    SHORT,
    Arrivals,
    Lengths,
    diurnal,
    generate,
    modulated,
    poisson,
    read,
)
from tramontane.plan.inference_scaling import Objective

TUNING_SEEDS = (101, 102, 103)
REPORTED_SEEDS = (1, 2)
PUBLIC = Path(__file__).parent.parent / "traces"
"""CSV files of BurstGPT or Azure that lie here are replayed as well."""
PUBLIC_RATE_PER_S = 2.5
OBJECTIVE = Objective(instances_max=INSTANCES_MAX)

GPU = Engine(
    name="8B on a small GPU",
    step_s=0.045,
    per_stream_s=0.001,
    prompt_tokens_per_s=4000,
    chunk_tokens=512,
    slots=16,
    kv_tokens=60_000,
    load_s=40,
)
CPU = Engine(
    name="1B on 16 CPU cores",
    step_s=0.06,
    per_stream_s=0.012,
    prompt_tokens_per_s=600,
    chunk_tokens=256,
    slots=8,
    kv_tokens=32_000,
    load_s=4,
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """An engine and what is asked of it."""

    name: str
    engine: Engine
    make: Callable[[int], list[Request]]
    """From a seed."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A policy as somebody would configure it."""

    policy: str
    words: str
    make: Callable[[Engine], Policy]
    default: bool = False


@dataclass
class Fixed:
    """Always the same number: what one has without an autoscaler, if one knew the number."""

    count: int
    name: str = "fixed number"
    grace_s: float = inf

    def decide(self, view: View) -> Orders | None:
        return Orders(instances=self.count) if view.kept != self.count else None


def find_scenarios() -> list[Scenario]:
    """Return the generated ones, and one for each public trace that is there."""
    generated: list[tuple[str, Engine, Arrivals, Lengths]] = [
        ("steady", GPU, poisson(2.5), CHAT),
        ("bursts", GPU, modulated((1.0, 4.5), (240, 90)), CHAT),
        ("diurnal", GPU, diurnal(2.5, 0.9, 2400, 0.4), CHAT),
        ("code", GPU, modulated((1.0, 4.0), (200, 100)), CODE),
        ("reasoning", GPU, diurnal(0.8, 0.5, 1800, 0.5), REASONING),
        ("sporadic", CPU, modulated((0.0, 0.5), (600, 200)), SHORT),
    ]
    return [
        *(
            Scenario(name=name, engine=engine, make=_generate(arrivals, lengths))
            for name, engine, arrivals, lengths in generated
        ),
        *(
            Scenario(name=path.stem, engine=GPU, make=_replay(path))
            for path in sorted(PUBLIC.glob("*.csv"))
        ),
    ]


def list_settings() -> list[Setting]:
    """Return ours first, then every rival's default, then their grids."""
    found = [_ours(0.05, default=True), *(_ours(late) for late in (0.02, 0.1))]
    found += [
        Setting(
            policy="Knative KPA",
            words="default",
            make=lambda engine: KnativePodAutoscaler(),
            default=True,
        ),
        Setting(policy="KEDA", words="default", make=lambda engine: Keda(), default=True),
        Setting(policy="KEDA", words="waiting 1", make=lambda engine: Keda(threshold=1)),
        _averaging(0.7, 300, default=True),
    ]
    for share in (0.25, 0.35, 0.45, 0.6, 0.75, 0.9):
        found += [_knative(share, delay_s) for delay_s in (0, 300)]
        found += [_keda(share, window_s) for window_s in (60, 300)]
    for share in (0.2, 0.3, 0.45, 0.55, 0.7):
        found += [
            _averaging(share, down_s) for down_s in (60, 300) if (share, down_s) != (0.7, 300)
        ]
    found += [_fixed(count) for count in range(1, 9)]
    return found


def _generate(arrivals: Arrivals, lengths: Lengths) -> Callable[[int], list[Request]]:
    return lambda seed: generate(arrivals, lengths, seed)


def _replay(path: Path) -> Callable[[int], list[Request]]:
    return lambda seed: read(path, rate=PUBLIC_RATE_PER_S)


def _ours(late_share: float, *, default: bool = False) -> Setting:
    objective = Objective(instances_max=INSTANCES_MAX, late_share=late_share)
    return Setting(
        policy="ours",
        words=f"{late_share:.1%} may be late",
        make=lambda engine: Ours(objective),
        default=default,
    )


def _knative(share: float, delay_s: float) -> Setting:
    return Setting(
        policy="Knative KPA",
        words=f"target {share:.0%} of slots, down delay {delay_s:.0f} s",
        make=lambda engine: KnativePodAutoscaler(target=share * engine.slots, down_delay_s=delay_s),
    )


def _keda(share: float, window_s: float) -> Setting:
    return Setting(
        policy="KEDA",
        words=f"running and waiting {share:.0%} of slots, down window {window_s:.0f} s",
        make=lambda engine: Keda(
            threshold=share * engine.slots, running_too=True, stabilisation_s=window_s
        ),
    )


def _averaging(share: float, down_s: float, *, default: bool = False) -> Setting:
    return Setting(
        policy="15 s / 5 min average",
        words=f"target {share:.0%} of slots, down over {down_s:.0f} s",
        make=lambda engine: Averaging(target=share * engine.slots, down_s=down_s),
        default=default,
    )


def _fixed(count: int) -> Setting:
    return Setting(policy="fixed number", words=str(count), make=lambda engine: Fixed(count))
