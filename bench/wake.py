"""How much longer a request to a sleeping service takes than the program's own start.

The request is held by the gateway while the platform starts an instance in its sandbox; what is
measured is the first byte of the answer. The other side starts the same artifact directly, with
the same files at the same paths, and asks it the same until it answers: exec to first byte, and,
stricter, exec to the first accepted connection. Both run in turn on the same machine.
"""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.e2e.platform import Platform

from bench.own_sandbox import OwnSandbox, make_own_sandbox
from bench.platforms import (
    EXAMPLES,
    PROJECT,
    open_client,
    put_to_sleep,
    read_rows,
    run_platform,
    time_first_byte,
    wait_for,
)
from bench.report import Ratio, Report, Side, ours, percentile

NAME = "wake"
MODEL = Path(__file__).with_name("model.yaml")
ROUNDS = 20
STEPS = ("placed", "started in its sandbox", "ready", "answered")
GOAL_P50 = "≤ 20 ms"
GOAL_P99 = "≤ 60 ms"


@dataclass(kw_only=True)
class Subject:
    """One service and what was measured of it."""

    service: str
    deploy: tuple[str, ...]
    """What ``tram`` is told."""
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    wakes_s: list[float] = field(default_factory=list)
    listening_s: list[float] = field(default_factory=list)
    first_byte_s: list[float] = field(default_factory=list)
    steps_s: list[tuple[float, ...]] = field(default_factory=list)
    """Where each wake's time went, as ``STEPS`` names it."""


async def run() -> Report:
    """Measure and report."""
    subjects = [
        Subject(service="hello-python", deploy=("deploy", str(EXAMPLES / "hello-python"))),
        Subject(service="hello-go", deploy=("deploy", str(EXAMPLES / "hello-go"))),
        Subject(service="tiny", deploy=("apply", "--file", str(MODEL)), path="/health"),
    ]
    with run_platform() as platform, open_client(platform) as client, ExitStack() as stack:
        key = json.loads(
            platform.tram("tokens", "create", "--project", PROJECT, "-o", "json").stdout
        )["token"]
        sandboxes: dict[str, OwnSandbox] = {}
        for subject in subjects:
            platform.tram(*subject.deploy, timeout_s=600)
            artifact = read_artifact(platform, subject.service)
            sandboxes[subject.service] = stack.enter_context(make_own_sandbox(artifact))
            sandboxes[subject.service].start_once(subject.path)
        subjects[-1].headers["authorization"] = f"Bearer {key}"
        for number in range(ROUNDS + 1):
            put_to_sleep(client, [subject.service for subject in subjects])
            for subject in subjects:
                # Alternating, so that neither side always finds the caches of the other warm.
                if number % 2:
                    measure_own(subject, sandboxes[subject.service])
                measure_wake(subject, platform)
                if not number % 2:
                    measure_own(subject, sandboxes[subject.service])
    for subject in subjects:
        # The first round warms both sides up.
        for values in (
            subject.wakes_s,
            subject.listening_s,
            subject.first_byte_s,
            subject.steps_s,
        ):
            del values[0]
    return make_report(subjects)


def measure_wake(subject: Subject, platform: Platform) -> None:
    """Wake it once, and read from the platform's own notes what it did meanwhile."""
    began = time.time()
    took_s = time_first_byte(platform, subject.service, subject.path, subject.headers)
    subject.wakes_s.append(took_s)
    # The route is published beside the write, so the answer may be here before the note is.
    wait_for(lambda: None not in read_times(platform, subject.service), "the wake to be noted")
    noted = read_times(platform, subject.service)
    times = (began, *noted, began + took_s)
    subject.steps_s.append(tuple(after - before for before, after in pairwise(times)))


def read_times(platform: Platform, service: str) -> tuple[Any, ...]:
    """Return when the service's newest instance was placed, started and ready."""
    (noted,) = read_rows(
        platform,
        "select i.created_at, i.started_at, i.ready_at from instances i"
        " join services s on s.id = i.service_id where s.name = ?"
        " order by i.created_at desc limit 1",
        service,
    )
    return noted


def measure_own(subject: Subject, sandbox: OwnSandbox) -> None:
    """Start it once by itself."""
    took = sandbox.start_once(subject.path)
    subject.listening_s.append(took["listening_s"])
    subject.first_byte_s.append(took["first_byte_s"])


def read_artifact(platform: Platform, service: str) -> dict[str, object]:
    """Return what the platform starts for a service, as it keeps it."""
    rows = read_rows(
        platform,
        "select d.artifact from deployments d join services s on s.serving_deployment = d.id"
        " where s.name = ?",
        service,
    )
    return json.loads(rows[0][0])


def make_report(subjects: list[Subject]) -> Report:
    """Put the numbers together."""
    sides: list[Side] = []
    ratios: list[Ratio] = []
    for subject in subjects:
        name, wakes, own = subject.service, subject.wakes_s, subject.first_byte_s
        rows = {
            f"{name}, wake to first byte": (wakes, ours()),
            f"{name}, own start to first byte": (own, "the same artifact"),
            f"{name}, own start to listening": (subject.listening_s, "the same artifact"),
        }
        for label, (values, version) in rows.items():
            milliseconds = {f"p{p} ms": percentile(values, p / 100) * 1e3 for p in (50, 99)}
            sides.append(Side(name=label, version=version, values=milliseconds))
        pairs = zip(wakes, own, strict=True)
        ratios += [
            Ratio(what=f"{name}: wake over own start", rounds=tuple(a / b for a, b in pairs)),
            *_added(f"{name}, over own first byte", wakes, own, (GOAL_P50, GOAL_P99)),
            *_added(f"{name}, over listening", wakes, subject.listening_s, ("", "")),
        ]
    notes = [f"{ROUNDS} wakes each, so p99 is the slowest one"]
    for subject in subjects:
        steps = zip(STEPS, zip(*subject.steps_s, strict=True), strict=True)
        medians = (f"{name} +{percentile(values, 0.5) * 1e3:.0f} ms" for name, values in steps)
        notes.append(f"{subject.service}, p50 of each step of a wake: {', '.join(medians)}")
    raw = {
        subject.service: {
            "wakes_s": subject.wakes_s,
            "own_first_byte_s": subject.first_byte_s,
            "own_listening_s": subject.listening_s,
            "steps_s": subject.steps_s,
        }
        for subject in subjects
    }
    return Report(name=NAME, sides=sides, ratios=ratios, notes=notes, raw=raw)


def _added(
    what: str, wakes: list[float], own: list[float], goals: tuple[str, str]
) -> tuple[Ratio, Ratio]:
    """Return what a wake adds: the median over pairs, and between the slowest of both sides."""
    pairs = tuple((a - b) * 1e3 for a, b in zip(wakes, own, strict=True))
    slowest = (percentile(wakes, 0.99) - percentile(own, 0.99)) * 1e3
    return (
        Ratio(what=f"{what}: added p50", rounds=pairs, unit="ms", goal=goals[0]),
        Ratio(what=f"{what}: added p99", rounds=(slowest,), unit="ms", goal=goals[1]),
    )
