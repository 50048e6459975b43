"""Whether an instance on its way is ready: decided from its age and what its probe found.

Pure, so that every runtime decides alike; called by each of them while an instance starts.
"""

from enum import StrEnum

from tramontane.domain.definition import Probe, ProbeKind


class Start(StrEnum):
    """How a start stands."""

    UNDER_WAY = "under way"
    READY = "ready"
    OVERDUE = "overdue"
    """The grace is over and it is not ready: it has failed."""


def judge_start(how: Probe, age_s: float, *, answers: bool) -> Start:
    """Return how the start of an instance stands that has run for ``age_s``.

    ``answers`` says whether its newest probe succeeded; without probes it means nothing.
    """
    over = age_s >= how.grace_s
    if how.kind is ProbeKind.NONE:
        return Start.READY if over else Start.UNDER_WAY
    if answers:
        return Start.READY
    return Start.OVERDUE if over else Start.UNDER_WAY
