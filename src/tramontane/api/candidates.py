"""Where a definition may run, as the API shows it: asks the same function that places instances."""

from collections.abc import Sequence

from tramontane.domain.deployment import Deployment
from tramontane.plan.placement import Candidate, Wish, consider
from tramontane.plan.sizing import Sizing
from tramontane.store.store import Store
from tramontane.wire.schemas import CandidateView, FindingView, SizePartView, SizingView


def find_candidates(store: Store, wish: Wish, now: float) -> tuple[Candidate, ...]:
    """Return every cell with its verdict, the best choice first."""
    return consider(wish, store.list_cells(), store.read_memory_used(), now)


def wish_of(deployment: Deployment, project_policy: Sequence[str]) -> Wish:
    """Return what is to be placed of a deployment."""
    return Wish(
        definition=deployment.definition,
        facts=deployment.facts,
        project_policy=tuple(project_policy),
    )


def refusal(candidates: Sequence[Candidate]) -> str | None:
    """Return why no cell may run it, or None if one may."""
    if any(each.allowed for each in candidates):
        return None
    if not candidates:
        return "waits: there is no cell yet"
    return f"waits: no cell may run it: {candidates[0].reason}"


def candidate_view(candidate: Candidate) -> CandidateView:
    """Return the wire form of one cell's verdict."""
    sizing = candidate.needs.sizing
    return CandidateView(
        cell=candidate.cell_name,
        allowed=candidate.allowed,
        reason=candidate.reason,
        findings=[
            FindingView(rule=each.rule, verdict=each.verdict.value, reason=each.reason)
            for each in candidate.findings
        ],
        sizing=None if sizing is None else sizing_view(sizing),
    )


def sizing_view(sizing: Sizing) -> SizingView:
    """Return the wire form of what an instance gets."""
    return SizingView(
        engine=sizing.engine,
        memory_bytes=sizing.memory_bytes,
        needed_bytes=sizing.needed_bytes,
        cpus=sizing.cpus,
        threads=sizing.threads,
        context_tokens=sizing.context_tokens,
        parallel=sizing.parallel,
        batch_tokens=sizing.batch_tokens,
        embeddings=sizing.embeddings,
        prompt_cache_bytes=sizing.prompt_cache_bytes,
        parts=[
            SizePartView(name=each.name, size_bytes=each.size_bytes, how=each.how)
            for each in sizing.parts
        ],
        notes=list(sizing.notes),
    )
