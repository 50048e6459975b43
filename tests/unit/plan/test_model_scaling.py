"""A model's service through whole plans: what its users notice decides, and no stream is cut."""

from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.unit.plan.world import World, definition
from tramontane.domain.definition import ModelSource, Scaling, ServiceKind
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.load import EngineLoad
from tramontane.domain.service import ServiceStatus
from tramontane.plan.inference_scaling import InferenceScalingState
from tramontane.plan.scaling import ScalingState

SLOTS = 4


def model(**changes: Any) -> Any:
    limits = Scaling(instances_min=0, instances_max=4, concurrency=SLOTS, idle_s=60)
    return definition(
        kind=ServiceKind.MODEL,
        source=ModelSource(reference="tiny"),
        scaling=replace(limits, **changes),
    )


def serving(**changes: Any) -> World:
    world = World()
    world.deploy(model(**changes))
    world.settle()
    return world


def ready(world: World) -> list[Instance]:
    return [each for each in world.live() if each.status is InstanceStatus.HEALTHY]


def carry(world: World, each_has: int, seconds: int) -> None:
    """Let every ready instance have so many requests, which stay."""
    for _ in range(seconds):
        for instance in ready(world):
            assert instance.endpoint is not None
            missing = each_has - world.load.get(instance.endpoint, 0)
            world.load[instance.endpoint] = each_has
            world.arrived += max(missing, 0)
        world.advance(1)
        world.look()


def start_all(world: World) -> None:
    for each in world.live():
        if each.status is InstanceStatus.STARTING:
            world.ready(each.id)
    world.settle()


def test_full_slots_ask_for_another_instance_and_an_empty_one_goes_again() -> None:
    world = serving()
    carry(world, SLOTS, 5)
    start_all(world)
    assert len(ready(world)) >= 2
    world.finish_requests()
    for _ in range(200):
        world.advance(1)
        world.look()
        if len(ready(world)) == 1:
            break
    assert len(ready(world)) == 1
    assert world.service.status is not ServiceStatus.SLEEPING


def test_an_instance_that_was_to_go_is_called_back_instead_of_starting_another() -> None:
    world = serving()
    carry(world, SLOTS, 5)
    start_all(world)
    world.scale(1)
    world.look()
    leaving = [each for each in world.live() if each.status is InstanceStatus.DRAINING]
    assert leaving, "the second one drains, with its streams open or not"
    endpoint = leaving[0].endpoint
    assert endpoint is not None
    world.load[endpoint] = 1
    world.resume()
    carry(world, SLOTS, 1)
    before = len(world.started)
    world.look()
    assert world.instances[leaving[0].id].status is InstanceStatus.HEALTHY
    assert world.instances[leaving[0].id].reason == "recalled"
    assert len(world.started) == before


def test_idle_it_sleeps_and_remembers_what_it_learned() -> None:
    world = serving()
    carry(world, 1, 20)
    world.finish_requests()
    for _ in range(80):
        world.advance(1)
        world.look()
    assert world.service.status is ServiceStatus.SLEEPING
    assert isinstance(world.state, InferenceScalingState)
    assert sum(world.state.learned.record) > 0


def test_its_engines_slots_are_believed_over_its_users_guess() -> None:
    world = serving(concurrency=100)
    (instance,) = ready(world)
    assert instance.endpoint is not None
    world.engines = (EngineLoad(endpoint=instance.endpoint, running=2, queued=6, slots=2),)
    carry(world, 8, 5)
    assert len(world.live()) > 1


def test_a_web_service_is_scaled_as_ever() -> None:
    world = World()
    world.deploy()
    world.settle()
    carry(world, 3, 5)
    assert isinstance(world.state, ScalingState)


class ModelService(RuleBasedStateMachine):
    """Whatever happens, an instance with an open stream is not told to stop by demand."""

    def __init__(self) -> None:
        super().__init__()
        self.world = serving()

    @rule()
    def much(self) -> None:
        carry(self.world, SLOTS + 2, 3)

    @rule()
    def little(self) -> None:
        carry(self.world, 1, 3)

    @rule()
    def one_ends(self) -> None:
        if self.world.load:
            self.world.load.popitem()

    @rule()
    def all_end(self) -> None:
        self.world.finish_requests()

    @rule()
    def a_while(self) -> None:
        for _ in range(25):
            self.world.advance(1)
            self.world.look()

    @rule()
    def starts(self) -> None:
        for each in self.world.live():
            if each.status is InstanceStatus.STARTING:
                self.world.ready(each.id)
        self.world.look()

    @invariant()
    def no_open_stream_is_cut(self) -> None:
        for each in self.world.instances.values():
            ending = each.status in {InstanceStatus.STOPPING, InstanceStatus.STOPPED}
            assert not (ending and self.world.load.get(each.endpoint or "")), each
        assert len(ready(self.world)) <= 4


ModelService.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestModelService = ModelService.TestCase
