"""Where an instance may run: one function for first placement, reschedule and wake.

``plan.service`` places with it; the API answers ``tram why`` and ``tram plan`` with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tramontane.domain.cell import Cell
from tramontane.domain.definition import Definition
from tramontane.domain.ids import CellId
from tramontane.domain.model import ModelFacts
from tramontane.plan.needs import Needs, needs_of
from tramontane.plan.sizing import mebibytes, mebibytes_down
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
    needs: Needs
    """What an instance would take there."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is to be placed."""

    definition: Definition
    facts: ModelFacts | None
    """Of the model that it serves; None for what serves none, or was not looked at yet."""
    project_policy: tuple[str, ...] = ()

    @property
    def policy(self) -> tuple[str, ...]:
        """Names of all presets that must hold, each once."""
        return tuple(dict.fromkeys((*self.project_policy, *self.definition.policy)))


def consider(
    wish: Wish, cells: Sequence[Cell], memory_used: Mapping[CellId, int], now: float
) -> tuple[Candidate, ...]:
    """Return every cell with its verdict, the best choice first.

    ``memory_used`` is in bytes and counts the limits of the instances already placed. Raises
    ``InvalidRequest`` if the policy names an unknown preset.
    """
    presets = find_presets(wish.policy)
    candidates = [
        _judge(
            cell,
            evaluate(presets, cell, now),
            needs_of(wish.definition, wish.facts, cell.capacity),
            memory_used.get(cell.id, 0),
        )
        for cell in cells
    ]
    free = {cell.id: cell.capacity.memory_bytes - memory_used.get(cell.id, 0) for cell in cells}
    return tuple(
        sorted(
            candidates,
            key=lambda each: (not each.allowed, not each.fits, -free[each.cell_id], each.cell_name),
        )
    )


def why_nowhere(candidates: Sequence[Candidate]) -> tuple[str, str]:
    """Return a reason code and a sentence for an instance that no cell may and can take."""
    if not candidates:
        return "policy", "there is no cell"
    allowed = [each for each in candidates if each.allowed]
    why = candidates[0].reason
    if not allowed:
        return "policy", why
    # Waiting helps where there is no room now, but not where there never will be.
    never = all(each.needs.refusal is not None for each in allowed)
    return ("too_large" if never else "no_capacity"), why


def _judge(cell: Cell, findings: tuple[Finding, ...], needs: Needs, used: int) -> Candidate:
    against = next((each for each in findings if each.verdict is not Verdict.SATISFIED), None)
    free = cell.capacity.memory_bytes - used
    wanted = needs.resources.memory_bytes
    fits = cell.reachable and needs.refusal is None and wanted <= free
    if against is not None:
        reason = f"{against.rule}: {against.reason}"
    elif not cell.reachable:
        reason = f"cell {cell.name} is not reachable"
    elif needs.refusal is not None:
        reason = f"it cannot run in cell {cell.name}: {needs.refusal.message}"
    elif not fits:
        reason = (
            f"cell {cell.name} has {mebibytes_down(free)} of memory left of "
            f"{mebibytes_down(cell.capacity.memory_bytes)}; one instance needs {mebibytes(wanted)}"
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
        needs=needs,
    )
