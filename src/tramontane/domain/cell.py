"""A cell: one failure domain, and what is claimed or known about where it is."""

from dataclasses import dataclass
from enum import StrEnum

from tramontane.domain.ids import CellId
from tramontane.domain.usage import parse_euros

HOURLY_COST = "hourly_cost_eur"
"""Attribute of what an hour of a cell costs whoever pays for it."""


class EvidenceLevel(StrEnum):
    """How a fact is known; ordered, weakest first."""

    CLAIM = "E0"
    CONTRACT = "E1"
    CERTIFICATE = "E2"
    MEASURED = "E3"
    ATTESTED = "E4"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One attribute of a cell, with where it comes from. No fact means unknown."""

    attribute: str
    """``country``, ``operator``, ``operator_country`` …"""
    value: str
    evidence: EvidenceLevel
    source: str
    """Who says so, as a person would cite it."""
    recorded_at: float
    valid_until: float | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cell has for instances, in all."""

    memory_bytes: int
    cpus: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A runtime at a provider in a region."""

    id: CellId
    name: str
    runtime: str
    isolation: str
    """The isolation that its runtime really gives here: ``sandbox`` or ``none``."""
    capacity: Capacity
    facts: tuple[Fact, ...] = ()
    reachable: bool = True

    @property
    def hourly_cost(self) -> int:
        """What an hour of it costs, in billionths of a euro; 0 if nobody has said."""
        known = (each.value for each in self.facts if each.attribute == HOURLY_COST)
        return parse_euros(next(known, "0")) or 0
