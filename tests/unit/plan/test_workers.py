"""A worker through its life: nobody sends it requests, so nobody but its user stops it."""

from tests.unit.plan.world import World, definition
from tramontane.domain.definition import Definition, Probe, ProbeKind, Scaling, ServiceKind
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.instance import InstanceStatus
from tramontane.domain.route import Upstream
from tramontane.domain.service import ServiceStatus


def worker(low: int = 1, high: int = 5) -> Definition:
    return definition(
        kind=ServiceKind.WORKER,
        probe=Probe(kind=ProbeKind.NONE, grace_s=5),
        scaling=Scaling(instances_min=low, instances_max=high, idle_s=60),
    )


def working_world(low: int = 1) -> World:
    world = World()
    world.deploy(worker(low))
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY
    return world


def test_it_runs_without_an_address_and_never_falls_asleep() -> None:
    world = working_world(low=2)
    for _ in range(20):
        world.advance(600)
        world.settle()
    assert world.service.status is ServiceStatus.HEALTHY
    assert len(world.live()) == len(world.started) == 2
    assert world.target is None


def test_while_it_starts_it_has_no_address_either() -> None:
    world = World()
    world.deploy(worker(), built=False)
    assert world.look().route is None
    world = World()
    world.deploy(worker())
    assert world.look().route is None


def test_scaled_to_zero_it_stays_there_and_says_how_to_start_it() -> None:
    world = working_world()
    world.scale(0)
    world.settle()
    for _ in range(5):
        world.advance(600)
        world.settle()
    assert not world.live()
    assert world.service.status is ServiceStatus.SLEEPING
    assert world.service.reason == "scaled_to_zero"
    assert "tram scale hello auto" in world.service.message
    assert "no request wakes it" in world.service.message
    world.resume()
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_it_is_scaled_by_hand_and_back_to_its_minimum() -> None:
    world = working_world()
    world.scale(3)
    world.settle()
    assert len(world.live()) == 3
    world.resume()
    world.settle()
    assert len(world.live()) == 1


def test_a_deployment_starts_again_what_was_scaled_to_zero() -> None:
    world = working_world()
    world.scale(0)
    world.settle()
    world.deploy(worker())
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_it_is_told_to_stop_at_once_since_it_has_no_requests_to_drain() -> None:
    world = working_world()
    world.pause()
    plan = world.look()
    assert [each.status for each in plan.stop] == [InstanceStatus.STOPPING]
    world.settle()
    assert world.service.status is ServiceStatus.PAUSED
    world.resume()
    world.settle()
    assert world.service.status is ServiceStatus.HEALTHY


def test_a_crash_is_followed_by_a_start_at_once_then_with_growing_pauses() -> None:
    world = working_world()
    world.exited(world.live()[0].id)
    assert len(world.look().start) == 1
    pauses = []
    for _ in range(4):
        world.exited(world.live()[0].id)
        assert not world.look().start
        assert world.service.status is ServiceStatus.ERROR
        assert world.service.reason == "start_failed"
        assert world.service.retry_at is not None
        pauses.append(world.service.retry_at - world.now)
        world.advance(pauses[-1] + 0.01)
        assert len(world.look().start) == 1
    assert pauses == sorted(set(pauses))


def test_a_new_version_takes_over_when_it_has_outlived_its_grace() -> None:
    world = working_world()
    new = world.deploy(worker())
    (started,) = world.look().start
    assert world.service.serving_deployment == "dep_1"
    assert len(world.live()) == 2
    world.ready(started.id)
    world.settle()
    assert world.service.serving_deployment == new.id
    assert [each.deployment_id for each in world.live()] == [new.id]


def test_a_new_version_that_dies_within_its_grace_leaves_the_old_one_working() -> None:
    world = working_world()
    bad = world.deploy(worker())
    for _ in range(3):
        for instance in world.look().start:
            world.exited(instance.id)
    world.settle()
    assert world.deployments[bad.id].status is DeploymentStatus.FAILED
    assert world.service.status is ServiceStatus.DEGRADED
    assert [each.deployment_id for each in world.live()] == ["dep_1"]


def test_a_new_version_proves_itself_with_its_own_number() -> None:
    world = working_world(low=3)
    world.deploy(worker(low=1))
    assert len(world.look().start) == 1
    world.settle()
    assert len(world.started) == 4
    assert len(world.live()) == 1


def test_a_web_service_keeps_its_address_until_a_worker_has_taken_its_place() -> None:
    world = World()
    world.deploy(definition(scaling=Scaling(instances_min=3, instances_max=5)))
    world.settle()
    world.deploy(worker())
    (started,) = world.look().start
    assert isinstance(world.target, Upstream)
    assert len(world.target.endpoints or ()) == 3
    world.ready(started.id)
    world.settle()
    assert world.target is None
    world.advance(60)
    world.settle()
    assert len(world.live()) == 1


def test_a_web_service_keeps_its_address_if_the_worker_fails() -> None:
    world = World()
    world.deploy()
    world.settle()
    bad = world.deploy(worker())
    for _ in range(3):
        for instance in world.look().start:
            world.exited(instance.id)
    world.settle()
    assert world.deployments[bad.id].status is DeploymentStatus.FAILED
    assert isinstance(world.target, Upstream)
    assert world.target.endpoints


def test_a_web_service_wakes_as_before_if_the_worker_failed() -> None:
    world = World()
    world.deploy()
    world.settle()
    world.deploy(worker())
    for _ in range(3):
        for instance in world.look().start:
            world.exited(instance.id)
    world.scale(0)
    world.settle()
    world.advance(3)
    world.settle()
    assert world.service.status is ServiceStatus.SLEEPING
    world.request()
    world.settle()
    world.settle()
    assert len(world.live()) == 1


def test_a_worker_gets_an_address_with_the_web_service_that_takes_its_place() -> None:
    world = working_world(low=3)
    world.deploy()
    world.look()
    assert world.target is None
    world.settle()
    assert isinstance(world.target, Upstream)
    assert len(world.target.endpoints or ()) == 1
