"""What a change of one service touches, and under which names Envoy is told."""

from pathlib import Path

import pytest

from tests.unit.gateway.golden import OPTIONS, TRUST
from tramontane.domain.route import Refusal, ServiceRoute, Upstream
from tramontane.gateway.aliases import CHAINS
from tramontane.gateway.bootstrap import EnvoyPaths, make_bootstrap
from tramontane.gateway.catalogue import CLUSTER, ENDPOINTS, ROUTES, Catalogue
from tramontane.gateway.clusters import make_cluster
from tramontane.gateway.descriptors import Schema
from tramontane.gateway.envoy import EnvoyOptions, make_command
from tramontane.gateway.files import CLUSTER as FILES
from tramontane.gateway.resources import Resources

SCHEMA = Schema()


class World:
    def __init__(self) -> None:
        self.catalogue = Catalogue()
        self.wakes: list[str] = []
        self.resources = Resources(
            schema=SCHEMA,
            catalogue=self.catalogue,
            options=OPTIONS,
            on_wake=self.wakes.append,
            on_rejected=lambda _: None,
        )
        self.resources.replace([], [], TRUST)

    def put(self, target: Upstream | Refusal) -> None:
        self.resources.put_service(ServiceRoute(project="p", service="web", target=target))

    def upstreams(self) -> list[str]:
        return [name for name in self.catalogue.names(CLUSTER) if name not in {FILES, CHAINS}]

    def cluster_of_route(self) -> str:
        routes = self.catalogue.get(ROUTES, "services")
        assert routes
        config = SCHEMA.decode("envoy.config.route.v3.RouteConfiguration", routes.body)
        return config["virtual_hosts"][0]["routes"][0]["route"]["cluster"]


@pytest.fixture
def world() -> World:
    return World()


def asleep(name: str) -> Upstream:
    return Upstream(name=name, endpoints=None)


def awake(name: str) -> Upstream:
    return Upstream(name=name, endpoints=("/run/a",))


def test_waking_changes_no_route(world: World) -> None:
    world.put(asleep("web@1"))
    before = world.catalogue.get(ROUTES, "services")
    world.put(awake("web@1"))
    assert world.catalogue.get(ROUTES, "services") is before
    assert world.upstreams() == world.catalogue.names(ENDPOINTS) == ["web@1"]


def test_a_woken_cluster_is_encoded_as_it_is_described(world: World) -> None:
    world.put(asleep("web@1"))
    world.put(awake("web@1"))
    told = world.catalogue.get(CLUSTER, "web@1")
    assert told
    assert told.body == SCHEMA.encode("envoy.config.cluster.v3.Cluster", make_cluster("web@1"))


def test_only_sleeping_upstreams_are_woken(world: World) -> None:
    world.put(asleep("web@1"))
    assert world.resources.on_wanted("web@1")
    assert not world.resources.on_wanted("web@0")
    assert world.wakes == ["web@1"]


def test_a_name_that_was_answered_is_not_used_again(world: World) -> None:
    world.put(awake("web@1"))
    world.put(asleep("web@1"))
    assert world.cluster_of_route() == "web@1+1"
    assert world.resources.on_wanted("web@1+1")
    assert world.wakes == ["web@1"]
    assert world.upstreams() == []


def test_a_name_that_envoy_still_has_is_not_used_again(world: World) -> None:
    world.put(asleep("web@1"))
    world.resources.on_connected(["web@1", "other@3"])
    assert world.cluster_of_route() == "web@1+1"


def test_the_held_follow_to_the_next_generation(world: World) -> None:
    world.put(asleep("web@1"))
    world.resources.on_wanted("web@1")
    world.put(asleep("web@2"))
    assert world.wakes == ["web@1", "web@2"]
    world.put(awake("web@2"))
    former = world.catalogue.get(CLUSTER, "web@1")
    assert former
    config = SCHEMA.decode("envoy.config.cluster.v3.Cluster", former.body)
    assert config["eds_cluster_config"]["service_name"] == "web@2"
    world.put(asleep("web@3"))
    assert world.upstreams() == []


def test_the_held_learn_why_the_start_failed(world: World) -> None:
    world.put(asleep("web@1"))
    world.resources.on_wanted("web@1")
    world.put(Refusal(status=503, code="start_failed", message="exit code 3"))
    failed = world.catalogue.get(CLUSTER, "web@1")
    assert failed
    config = SCHEMA.decode("envoy.config.cluster.v3.Cluster", failed.body)
    reason = config["metadata"]["filter_metadata"]["tramontane"]
    assert reason == {"code": "start_failed", "message": "exit code 3"}


def test_removing_a_service_leaves_nothing(world: World) -> None:
    world.put(awake("web@1"))
    world.resources.remove_service("p", "web")
    world.resources.remove_service("p", "never")
    assert world.upstreams() == world.catalogue.names(ENDPOINTS) == []


def test_no_limit_is_left_to_a_default(world: World) -> None:
    world.put(awake("web@1"))
    cluster = world.catalogue.get(CLUSTER, "web@1")
    assert cluster
    config = SCHEMA.decode("envoy.config.cluster.v3.Cluster", cluster.body)
    names = {"max_connections", "max_pending_requests", "max_requests", "max_retries"}
    for limits in config["circuit_breakers"]["thresholds"]:
        assert names <= set(limits)
    assert config["common_lb_config"]["healthy_panic_threshold"] == {}


def test_envoy_is_administered_over_a_socket_only() -> None:
    paths = EnvoyPaths(directory=Path("/d"), sockets=Path("/s"))
    bootstrap = make_bootstrap(paths, node_id="n", memory_max_bytes=1)
    assert bootstrap["admin"]["address"] == {"pipe": {"path": "/s/admin.sock", "mode": 0o600}}
    command = make_command(Path("/envoy"), paths, EnvoyOptions())
    assert "--disable-hot-restart" in command
