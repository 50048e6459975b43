"""One service through its life, as its user would tell it."""

from dataclasses import replace

from tests.unit.plan.world import ARTIFACT, CELL, START, World, definition
from tramontane.domain.cell import EvidenceLevel, Fact
from tramontane.domain.definition import Scaling
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.instance import InstanceStatus
from tramontane.domain.route import Refusal, Upstream
from tramontane.domain.service import ServiceStatus


def healthy_world(**changes: object) -> World:
    world = World()
    world.deploy(definition(**changes))
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY
    return world


def asleep_world() -> World:
    world = healthy_world()
    world.advance(120)
    world.settle()
    world.advance(3)
    world.settle()
    assert world.service.status is ServiceStatus.SLEEPING
    return world


def test_a_first_deployment_starts_one_instance_and_serves() -> None:
    world = World()
    world.deploy(built=False)
    assert world.look().build, "source is built before anything is placed"
    assert isinstance(world.target, Refusal)
    assert world.target.code == "building"
    world.deployments = {
        key: replace(each, artifact=ARTIFACT) for key, each in world.deployments.items()
    }
    world.look()
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints is None, "requests are held while the first instance starts"
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints == ("/run/ins_0000000000000001",)


def test_a_slow_start_is_soon_shown_as_one() -> None:
    world = World()
    world.deploy()
    plan = world.look()
    assert [each.status for each in world.live()] == [InstanceStatus.ALLOCATED]
    assert plan.look_again_at is not None
    world.advance(plan.look_again_at - world.now)
    world.look()
    assert [each.status for each in world.live()] == [InstanceStatus.STARTING]
    assert world.now - START < 5


def test_a_fresh_deployment_does_not_fall_asleep_at_once() -> None:
    world = World(now=START + 10_000)
    world.deploy()
    world.settle()
    world.advance(30)
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_an_idle_service_sleeps_under_a_fresh_name_and_wakes_once() -> None:
    world = healthy_world()
    assert isinstance(world.target, Upstream)
    first_name = world.target.name
    world.advance(120)
    world.settle()
    world.advance(3)
    world.settle()
    assert not world.live()
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints is None
    assert world.target.name != first_name
    started = len(world.started)
    world.advance(100)
    world.settle()
    assert len(world.started) == started, "nothing wakes it but a request"
    for _ in range(200):
        world.request()
    world.settle()
    assert len(world.started) == started + 1
    assert world.service.status is ServiceStatus.HEALTHY


def test_a_request_in_progress_keeps_an_idle_instance_alive() -> None:
    world = healthy_world()
    world.request()
    for _ in range(20):
        world.advance(60)
        world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_a_failed_new_deployment_leaves_the_old_one_serving() -> None:
    world = healthy_world()
    bad = world.deploy()
    for _ in range(3):
        for instance in world.look().start:
            world.exited(instance.id)
    world.settle()
    assert world.deployments[bad.id].status is DeploymentStatus.FAILED
    assert world.service.status is ServiceStatus.DEGRADED
    assert "deployment 1 goes on serving" in world.service.message
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints == ("/run/ins_0000000000000001",)


def test_waiting_for_the_whole_start_deadline_once_is_enough() -> None:
    world = healthy_world()
    bad = world.deploy()
    (instance,) = world.look().start
    world.exited(instance.id, "start_deadline")
    world.settle()
    assert world.deployments[bad.id].status is DeploymentStatus.FAILED


def test_a_rollout_never_drops_below_what_demand_asks_for() -> None:
    world = healthy_world(scaling=Scaling(instances_min=3, instances_max=5))
    assert len(world.live()) == 3
    new = world.deploy(definition(scaling=Scaling(instances_min=3, instances_max=5)))
    for _ in range(30):
        plan = world.look()
        ready = [each for each in world.live() if each.status is InstanceStatus.HEALTHY]
        assert len(ready) >= 3
        serving = [each for each in world.live() if each.status is not InstanceStatus.DRAINING]
        assert len([e for e in serving if e.status is not InstanceStatus.STOPPING]) <= 4
        for instance in plan.start:
            world.ready(instance.id)
        world.advance(1)
    assert world.service.serving_deployment == new.id
    assert {each.deployment_id for each in world.live()} == {new.id}


def test_scale_in_takes_the_idlest_and_never_cuts_a_request() -> None:
    world = healthy_world(scaling=Scaling(instances_min=1, instances_max=3))
    world.scale(3)
    world.settle()
    busy = sorted(each.endpoint or "" for each in world.live())[:2]
    world.load = dict.fromkeys(busy, 1)
    world.scale(1)
    for _ in range(100):
        world.advance(60)
        world.settle()
    assert {each.endpoint for each in world.live()} == set(busy), "both carry a stream"
    world.finish_requests()
    world.advance(3)
    world.settle()
    assert len(world.live()) == 1


def test_scale_to_zero_by_hand_sleeps_until_the_next_request() -> None:
    world = healthy_world()
    world.request()
    world.finish_requests()
    world.scale(0)
    world.settle()
    world.advance(3)
    world.settle()
    assert world.service.status is ServiceStatus.SLEEPING
    world.advance(1)
    world.settle()
    assert world.service.status is ServiceStatus.SLEEPING
    world.request()
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_a_crashed_instance_is_replaced_at_once_then_with_growing_pauses() -> None:
    world = healthy_world()
    world.exited(world.live()[0].id)
    plan = world.look()
    assert len(plan.start) == 1, "the first failure of a program that ran is forgiven"
    pauses = []
    for _ in range(5):
        (instance,) = [each for each in world.live() if each.status is not InstanceStatus.STOPPING]
        world.exited(instance.id)
        plan = world.look()
        assert not plan.start
        assert isinstance(world.target, Refusal)
        assert world.target.code == "start_failed"
        assert world.service.retry_at is not None
        pauses.append(world.service.retry_at - world.now)
        world.request()
        assert not world.look().start, "requests do not hammer a service that cannot start"
        world.advance(pauses[-1] + 0.01)
        assert len(world.look().start) == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] > 4 * pauses[0]


def test_a_service_that_ran_long_is_forgiven_its_past() -> None:
    world = healthy_world()
    world.exited(world.live()[0].id)
    world.settle()
    world.request()
    world.advance(100)
    world.settle()
    assert world.service.wake_failures == 0


def test_pause_stops_and_refuses_and_resume_comes_back() -> None:
    world = healthy_world()
    world.pause()
    world.settle()
    world.advance(3)
    world.settle()
    assert not world.live()
    assert isinstance(world.target, Refusal)
    assert world.target.code == "paused"
    world.resume()
    world.settle()
    world.request()
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_delete_ends_everything_then_says_so() -> None:
    world = healthy_world()
    world.delete()
    assert not world.look().finished
    world.advance(3)
    world.settle()
    assert world.look().finished
    assert world.look().route is None


def test_rollback_goes_back_through_the_same_gate() -> None:
    world = healthy_world()
    first = world.service.serving_deployment
    world.deploy()
    world.settle()
    assert world.service.serving_deployment != first
    world._wish(desired_deployment=first)
    world.settle()
    assert world.service.serving_deployment == first


def test_an_unhealthy_instance_takes_no_requests_and_is_replaced() -> None:
    world = healthy_world()
    sick = world.live()[0]
    world.unready(sick.id)
    world.look()
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints is None
    world.settle()
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints is not None
    assert sick.endpoint not in world.target.endpoints


def test_a_policy_that_no_cell_satisfies_keeps_it_pending_with_the_rule() -> None:
    world = World(cells=(replace(CELL, facts=()),))
    world.deploy(definition(policy=("eu",)))
    world.settle()
    assert world.service.status is ServiceStatus.PENDING
    assert world.service.reason == "policy"
    assert "eu.location" in world.service.message
    assert not world.started


def test_a_cell_that_stops_satisfying_the_policy_is_left() -> None:
    world = healthy_world(policy=("eu",))
    moved = Fact(
        attribute="country",
        value="US",
        evidence=EvidenceLevel.CLAIM,
        source="test",
        recorded_at=START,
    )
    world.cells = (replace(CELL, facts=(moved, *CELL.facts[1:])),)
    world.settle()
    assert not world.live(), "unavailable beats non-compliant"
    world.request()
    world.settle()
    assert not world.live()
    assert isinstance(world.target, Refusal)
    assert world.target.code == "policy"


def test_a_newer_deployment_overtakes_one_that_never_served() -> None:
    world = healthy_world()
    slow = world.deploy()
    world.look()
    world.deploy()
    world.settle()
    assert world.deployments[slow.id].status is DeploymentStatus.SUPERSEDED
    assert world.service.serving_deployment == "dep_3"


def test_a_sleeping_service_rolls_forward_when_a_new_deployment_comes() -> None:
    world = asleep_world()
    new = world.deploy()
    world.settle()
    assert world.service.serving_deployment == new.id
    assert world.service.status is ServiceStatus.HEALTHY


def test_requests_wake_the_old_deployment_when_the_new_one_cannot_be_placed() -> None:
    world = asleep_world()
    world.deploy(definition(policy=("country-fr",)))
    world.settle()
    world.request()
    world.settle()
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints
