"""Where an instance may run: one function for first placement, reschedule and wake.

``plan.service`` places with it; the API answers ``tram why`` and ``tram plan`` with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tramontane.domain.cell import Cell
from tramontane.domain.definition import Resources
from tramontane.domain.ids import CellId
from tramontane.policy.evaluation import evaluate
from tramontane.policy.findings import Finding, Verdict
from tramontane.policy.presets import find_presets


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One cell that was considered, and why it may or may not take the instance."""

    cell_id: CellId
    cell_name: str
    allowed: bool
    """Policy permits it. ``fits`` says whether there is room as well."""
    fits: bool
    reason: str
    findings: tuple[Finding, ...]


def consider(
    policy: Sequence[str],
    resources: Resources,
    cells: Sequence[Cell],
    memory_used: Mapping[CellId, int],
    now: float,
) -> tuple[Candidate, ...]:
    """Return every cell with its verdict, the best choice first.

    ``memory_used`` is in bytes and counts the limits of the instances already placed. Raises
    ``InvalidRequest`` if ``policy`` names an unknown preset.
    """
    presets = find_presets(policy)
    candidates = [
        _judge(cell, evaluate(presets, cell, now), resources, memory_used.get(cell.id, 0))
        for cell in cells
    ]
    free = {cell.id: cell.capacity.memory_bytes - memory_used.get(cell.id, 0) for cell in cells}
    return tuple(
        sorted(
            candidates,
            key=lambda each: (not each.allowed, not each.fits, -free[each.cell_id], each.cell_name),
        )
    )


def _judge(cell: Cell, findings: tuple[Finding, ...], resources: Resources, used: int) -> Candidate:
    against = next((each for each in findings if each.verdict is not Verdict.SATISFIED), None)
    free = cell.capacity.memory_bytes - used
    fits = cell.reachable and resources.memory_bytes <= free
    if against is not None:
        reason = f"{against.rule}: {against.reason}"
    elif not cell.reachable:
        reason = f"cell {cell.name} is not reachable"
    elif not fits:
        reason = (
            f"cell {cell.name} has {_mebibytes(free)} of memory left of "
            f"{_mebibytes(cell.capacity.memory_bytes)}; one instance needs "
            f"{_mebibytes(resources.memory_bytes)}"
        )
    elif findings:
        reason = "every rule is satisfied"
    else:
        reason = "no policy applies, so any cell may run it"
    return Candidate(
        cell_id=cell.id,
        cell_name=cell.name,
        allowed=against is None,
        fits=fits,
        reason=reason,
        findings=findings,
    )


def _mebibytes(count: int) -> str:
    return f"{max(count, 0) // 1024**2} MiB"
