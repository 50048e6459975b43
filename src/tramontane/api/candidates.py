"""Where a definition may run, as the API shows it: asks the same function that places instances."""

from collections.abc import Sequence

from tramontane.domain.definition import Definition
from tramontane.plan.placement import Candidate, consider
from tramontane.store.store import Store
from tramontane.wire.schemas import CandidateView, FindingView


def find_candidates(
    store: Store, project_policy: Sequence[str], definition: Definition, now: float
) -> tuple[Candidate, ...]:
    """Return every cell with its verdict, the best choice first."""
    policy = tuple(dict.fromkeys((*project_policy, *definition.policy)))
    return consider(policy, definition.resources, store.list_cells(), store.read_memory_used(), now)


def refusal(candidates: Sequence[Candidate]) -> str | None:
    """Return why no cell may run it, or None if one may."""
    if any(each.allowed for each in candidates):
        return None
    if not candidates:
        return "waits: there is no cell yet"
    return f"waits: no cell may run it: {candidates[0].reason}"


def candidate_view(candidate: Candidate) -> CandidateView:
    """Return the wire form of one cell's verdict."""
    return CandidateView(
        cell=candidate.cell_name,
        allowed=candidate.allowed,
        reason=candidate.reason,
        findings=[
            FindingView(rule=each.rule, verdict=each.verdict.value, reason=each.reason)
            for each in candidate.findings
        ],
    )
