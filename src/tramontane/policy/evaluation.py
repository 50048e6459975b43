"""Holds presets against a cell: the one place where allowed and not allowed are decided.

``plan.placement`` calls it for the first placement, every reschedule and every wake alike.
"""

from collections.abc import Iterable

from tramontane.domain.cell import Cell, EvidenceLevel, Fact
from tramontane.policy.findings import Finding, Verdict
from tramontane.policy.presets import Preset, Rule

ORDER = tuple(EvidenceLevel)


def evaluate(presets: Iterable[Preset], cell: Cell, now: float) -> tuple[Finding, ...]:
    """Return one finding per rule of all presets.

    The cell may run the service only if every finding is ``SATISFIED``; no presets, no findings.
    ``now`` is in seconds since the epoch and decides which facts are still valid.
    """
    return tuple(_hold(rule, cell, now) for preset in presets for rule in preset.rules)


def _hold(rule: Rule, cell: Cell, now: float) -> Finding:
    known = [fact for fact in cell.facts if fact.attribute == rule.attribute]
    valid = [fact for fact in known if fact.valid_until is None or now < fact.valid_until]
    name = rule.attribute.replace("_", " ")
    if not known:
        reason = f"the {name} of cell {cell.name} is unknown, and {rule.demand}; {rule.next_step}"
        return Finding(rule=rule.name, verdict=Verdict.UNKNOWN, reason=reason)
    if not valid:
        reason = f"what is known of the {name} of cell {cell.name} has expired; {rule.next_step}"
        return Finding(rule=rule.name, verdict=Verdict.UNKNOWN, reason=reason)
    # Contradicting facts: every valid one has to satisfy the rule, so that a second, more
    # convenient claim never outweighs the first.
    outside = next((fact for fact in valid if fact.value not in rule.allowed), None)
    if outside is not None:
        reason = f"the {name} of cell {cell.name} is {_cite(outside)}, but {rule.demand}"
        return Finding(rule=rule.name, verdict=Verdict.VIOLATED, reason=reason)
    best = max(valid, key=lambda fact: ORDER.index(fact.evidence))
    if ORDER.index(best.evidence) < ORDER.index(rule.evidence_min):
        reason = (
            f"the {name} of cell {cell.name} is {_cite(best)}, "
            f"but the rule asks for evidence {rule.evidence_min} or better"
        )
        return Finding(rule=rule.name, verdict=Verdict.UNKNOWN, reason=reason)
    reason = f"the {name} of cell {cell.name} is {_cite(best)}"
    return Finding(rule=rule.name, verdict=Verdict.SATISFIED, reason=reason)


def _cite(fact: Fact) -> str:
    return f"{fact.value} ({fact.evidence}: {fact.source})"
