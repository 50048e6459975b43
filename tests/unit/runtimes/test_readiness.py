"""When an instance on its way is ready, and when it is too late."""

import pytest

from tramontane.domain.definition import Probe, ProbeKind
from tramontane.runtimes.readiness import Start, judge_start


@pytest.mark.parametrize("kind", [ProbeKind.TCP, ProbeKind.HTTP])
@pytest.mark.parametrize(
    ("age_s", "answers", "start"),
    [
        (0.0, True, Start.READY),
        (4.9, False, Start.UNDER_WAY),
        (5.0, False, Start.OVERDUE),
        (5.0, True, Start.READY),
    ],
)
def test_what_can_be_asked_is_ready_when_it_answers(
    kind: ProbeKind, age_s: float, answers: bool, start: Start
) -> None:
    assert judge_start(Probe(kind=kind, grace_s=5), age_s, answers=answers) is start


@pytest.mark.parametrize("answers", [True, False])
def test_what_cannot_be_asked_is_ready_when_its_grace_is_over(answers: bool) -> None:
    probe = Probe(kind=ProbeKind.NONE, grace_s=5)
    assert judge_start(probe, 4.9, answers=answers) is Start.UNDER_WAY
    assert judge_start(probe, 5.0, answers=answers) is Start.READY
