"""Old deployments are forgotten, and never one that is wanted, serves, runs or is on its way."""

from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.deployment import OVER, DeploymentStatus
from tramontane.domain.ids import DeploymentId, ServiceId
from tramontane.domain.inventory import History, PastDeployment
from tramontane.plan.retention import plan_retention


def past(number: int, **changes: object) -> PastDeployment:
    values: dict[str, object] = {
        "status": DeploymentStatus.SUPERSEDED,
        "was_healthy": True,
        "live": False,
    }
    return PastDeployment(id=DeploymentId(f"dep_{number}"), number=number, **(values | changes))  # type: ignore[arg-type]


def history(*deployments: PastDeployment, desired: int, serving: int | None = None) -> History:
    return History(
        service_id=ServiceId("svc_1"),
        generation=1,
        desired=DeploymentId(f"dep_{desired}"),
        serving=DeploymentId(f"dep_{desired if serving is None else serving}"),
        deployments=deployments,
    )


def numbers(forgotten: tuple[DeploymentId, ...]) -> list[int]:
    return [int(each.removeprefix("dep_")) for each in forgotten]


def test_the_newest_are_kept() -> None:
    twelve = history(*(past(number) for number in range(1, 13)), desired=12)
    assert numbers(plan_retention(twelve, 10)) == [2, 1]
    assert plan_retention(twelve, 12) == ()


def test_what_is_wanted_serves_or_runs_is_kept_however_old() -> None:
    found = history(
        past(1),
        past(2, live=True),
        past(3, status=DeploymentStatus.HEALTHY),
        past(4, status=DeploymentStatus.STARTING),
        *(past(number) for number in range(5, 9)),
        desired=4,
        serving=3,
    )
    # 3 is also where a rollback from 4 would go.
    assert numbers(plan_retention(found, 2)) == [6, 5, 1]


def test_the_target_of_a_rollback_outlives_any_number_of_failures() -> None:
    failures = (
        past(number, status=DeploymentStatus.FAILED, was_healthy=False) for number in range(3, 30)
    )
    found = history(past(1), past(2), *failures, past(30), desired=30)
    assert numbers(plan_retention(found, 3)) == [*range(27, 2, -1), 1]


PAST = st.builds(
    past,
    st.integers(1, 30),
    status=st.sampled_from(DeploymentStatus),
    was_healthy=st.booleans(),
    live=st.booleans(),
)
HISTORIES = st.builds(
    lambda deployments, desired, serving: history(*deployments, desired=desired, serving=serving),
    st.lists(PAST, unique_by=lambda each: each.number),
    st.integers(1, 30),
    st.integers(1, 30),
)


@given(HISTORIES, st.integers(1, 12))
def test_nothing_needed_is_ever_forgotten(found: History, kept: int) -> None:
    forgotten = set(plan_retention(found, kept))
    newest = sorted(found.deployments, key=lambda each: each.number)[-kept:]
    for each in found.deployments:
        if each.id in forgotten:
            assert each.id not in {found.desired, found.serving}
            assert each.status in OVER
            assert not each.live
            assert each not in newest


@given(HISTORIES, st.integers(1, 12))
def test_a_rollback_goes_where_it_would_have_gone(found: History, kept: int) -> None:
    def target(deployments: list[PastDeployment]) -> PastDeployment | None:
        current = next((each.number for each in deployments if each.id == found.desired), 0)
        before = [each for each in deployments if each.was_healthy and each.number < current]
        return max(before, key=lambda each: each.number, default=None)

    forgotten = set(plan_retention(found, kept))
    left = [each for each in found.deployments if each.id not in forgotten]
    assert target(left) == target(list(found.deployments))


@given(HISTORIES, st.integers(1, 12))
def test_a_second_look_finds_nothing_more(found: History, kept: int) -> None:
    forgotten = set(plan_retention(found, kept))
    left = tuple(each for each in found.deployments if each.id not in forgotten)
    again = History(
        service_id=found.service_id,
        generation=found.generation,
        desired=found.desired,
        serving=found.serving,
        deployments=left,
    )
    assert plan_retention(again, kept) == ()
    # Bounded: whatever is over and unwanted beyond those kept is gone, but for the rollback's.
    idle = [
        each
        for each in left
        if each.status in OVER and not each.live and each.id not in {found.desired, found.serving}
    ]
    assert len(idle) <= kept + 1
