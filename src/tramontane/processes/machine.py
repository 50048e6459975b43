"""What this machine is: its size, and what its operator declares about where it stands.

The control plane makes its one local cell from this at every start.
"""

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.base.files import write_private
from tramontane.domain.cell import HOURLY_COST, Capacity, Cell, EvidenceLevel, Fact
from tramontane.domain.definition import Resources
from tramontane.domain.ids import CellId
from tramontane.domain.usage import parse_euros

CELL_NAME = "local"
CELL_ID = CellId("cel_local")

BUILD_MEMORY_BYTES_MIN = 1024**3
BUILD_MEMORY_BYTES_MAX = 8 * 1024**3
BUILD_PROCESSES_MAX = 4096
"""Threads are counted too, and compilers start one for each core and file."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What ``tram up --country CC --operator NAME`` says: a claim, and recorded as one."""

    country: str
    operator: str | None
    note: str
    """How it came to be declared: by whom a reader would ask."""
    declared_at: float


def read_claim(path: Path) -> Claim | None:
    """Return the claim of an earlier start, or None if nothing was ever declared."""
    try:
        return Claim(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def keep_claim(path: Path, claim: Claim) -> None:
    """Remember the claim for later starts."""
    write_private(path, json.dumps(asdict(claim), indent=2) + "\n")


def check_country(text: str) -> str:
    """Return an ISO 3166-1 alpha-2 code in upper case. Raises ``InvalidRequest``."""
    code = text.strip().upper()
    if not re.fullmatch(r"[A-Z]{2}", code):
        raise InvalidRequest(
            f"{text!r} is not a country: give its ISO 3166 code of two letters, such as DE",
            path="--country",
        )
    return code


def make_cell(
    claim: Claim | None, runtime: str, isolation: str, others: tuple[Fact, ...] = ()
) -> Cell:
    """Return the cell that this machine is; without a claim nothing is known of its place."""
    return Cell(
        id=CELL_ID,
        name=CELL_NAME,
        runtime=runtime,
        isolation=isolation,
        capacity=Capacity(memory_bytes=memory_bytes(), cpus=float(os.cpu_count() or 1)),
        facts=(*(() if claim is None else _facts(claim)), *others),
    )


def cost_facts(euros: str | None, known: Iterable[Cell], now: float) -> tuple[Fact, ...]:
    """Return what an hour of this machine costs: as it is said now, or was said before."""
    if euros is None:
        facts = (fact for cell in known if cell.id == CELL_ID for fact in cell.facts)
        return tuple(each for each in facts if each.attribute == HOURLY_COST)
    if not parse_euros(euros):
        return ()
    return (
        Fact(
            attribute=HOURLY_COST,
            value=euros,
            evidence=EvidenceLevel.CLAIM,
            source="claimed at tram up --hourly-cost",
            recorded_at=now,
        ),
    )


def make_build_resources(memory_bytes: int, cpus: float) -> Resources:
    """Return what one build may use of a machine of this size.

    Half of the memory, but not beyond what builds are known to need, and all cores but one: what
    runs here already goes on answering.
    """
    return Resources(
        memory_bytes=min(BUILD_MEMORY_BYTES_MAX, max(BUILD_MEMORY_BYTES_MIN, memory_bytes // 2)),
        cpus=max(1.0, cpus - 1.0),
        processes_max=BUILD_PROCESSES_MAX,
    )


def memory_bytes() -> int:
    """Return the size of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _facts(claim: Claim) -> tuple[Fact, ...]:
    values = {"country": claim.country}
    if claim.operator:
        # "This machine stands in DE and NAME operates it there": the one claim covers both.
        values |= {"operator": claim.operator, "operator_country": claim.country}
    return tuple(
        Fact(
            attribute=attribute,
            value=value,
            evidence=EvidenceLevel.CLAIM,
            source=claim.note,
            recorded_at=claim.declared_at,
        )
        for attribute, value in values.items()
    )
