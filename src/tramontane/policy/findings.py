"""The verdict of one rule on one cell, with the reason a person can act on."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Unknown never satisfies: only ``SATISFIED`` lets an instance run."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One rule held against one cell."""

    rule: str
    """Stable name of the rule, such as ``eu.location``."""
    verdict: Verdict
    reason: str
    """A sentence that names the fact and where it comes from, or says what is not known."""
