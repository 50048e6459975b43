"""What runtimes are told about an instance."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.unit.plan.test_sizing import LAPTOP, MISTRAL_7B, TINY
from tests.unit.plan.world import ARTIFACT, World
from tramontane.base.errors import Unsupported
from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import HOURLY_COST, Capacity, Cell, EvidenceLevel, Fact
from tramontane.domain.definition import (
    Definition,
    DirectorySource,
    ModelSource,
    Resources,
    ResourceWishes,
    ServiceKind,
)
from tramontane.domain.ids import CellId, InstanceId
from tramontane.domain.instance import Instance
from tramontane.domain.usage import Price
from tramontane.engines.llamacpp import LANGUAGE
from tramontane.plan.needs import needs_of
from tramontane.reconcile.specs import (
    STOP_GRACE_S,
    InstancePaths,
    make_spec,
    price_of_time,
    stop_grace_s,
)
from tramontane.runtimes.runtime import InstanceSpec

MODEL = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="m"))
PATHS = InstancePaths(logs="/logs", sockets="/run", ledger="/ledger")
NO_ACCESS: Mapping[str, str] = {}


def definition(kind: ServiceKind) -> Definition:
    return Definition(kind=kind, source=DirectorySource(digest="sha256:0"), drain_s=90)


def spec_of(
    wanted: Definition,
    artifact: Artifact,
    capacity: Capacity = LAPTOP,
    access: Mapping[str, str] = NO_ACCESS,
) -> InstanceSpec:
    world = World()
    deployment = replace(world.deploy(wanted), artifact=artifact)
    instance = Instance(
        id=InstanceId("ins_1"),
        service_id=world.service.id,
        deployment_id=deployment.id,
        cell_id=CellId("cel_1"),
        created_at=world.now,
    )
    return make_spec(world.service, deployment, instance, make_cell(capacity), PATHS, access)


def make_cell(capacity: Capacity, hourly_cost: str | None = None) -> Cell:
    fact = Fact(
        attribute=HOURLY_COST,
        value=hourly_cost or "",
        evidence=EvidenceLevel.CLAIM,
        source="a test",
        recorded_at=0.0,
    )
    return Cell(
        id=CellId("cel_1"),
        name="local",
        runtime="process",
        isolation="sandbox",
        capacity=capacity,
        facts=(fact,) if hourly_cost else (),
    )


def test_a_worker_gets_its_drain_to_finish_what_nobody_else_could_drain() -> None:
    assert stop_grace_s(definition(ServiceKind.WORKER)) == 90
    assert stop_grace_s(definition(ServiceKind.WEB)) == STOP_GRACE_S


def test_what_is_no_model_runs_its_command_within_the_usual_limits() -> None:
    spec = spec_of(definition(ServiceKind.WEB), ARTIFACT)
    assert spec.command == ARTIFACT.command
    assert spec.resources == Resources()


def test_an_engine_is_told_what_was_reckoned() -> None:
    spec = spec_of(MODEL, replace(ARTIFACT, facts=TINY))
    sizing = needs_of(MODEL, TINY, LAPTOP).sizing
    assert sizing is not None
    assert spec.resources.memory_bytes == sizing.memory_bytes
    *command, size = spec.command
    assert tuple(command) == ARTIFACT.command
    assert json.loads(size) == {
        "context_tokens": 1024,
        "parallel": 4,
        "threads": 1,
        "batch_tokens": 512,
        "prompt_cache_bytes": 0,
        "checkpoints": 4,
        "embeddings": 0,
    }


def test_a_model_that_was_prepared_before_it_was_looked_at_runs_as_it_did() -> None:
    stored = replace(MODEL, resources=ResourceWishes(memory_bytes=512 * 1024**2, cpus=1.0))
    spec = spec_of(stored, ARTIFACT)
    assert spec.command == ARTIFACT.command
    assert spec.resources == Resources(memory_bytes=512 * 1024**2, cpus=1.0)


def test_a_cell_that_has_become_too_small_does_not_start_it() -> None:
    with pytest.raises(Unsupported, match="it needs"):
        spec_of(MODEL, replace(ARTIFACT, facts=MISTRAL_7B), Capacity(memory_bytes=2**31, cpus=1.0))


def test_a_bound_service_gets_its_way_to_models_and_its_key() -> None:
    web = definition(ServiceKind.WEB)
    access = {"OPENAI_API_KEY": "tram_x"}
    bound = spec_of(replace(web, models=("assistant",)), ARTIFACT, access=access)
    assert bound.egress_socket is not None
    assert bound.egress_socket.endswith(".out")
    assert bound.models_socket == bound.egress_socket.removesuffix(".out") + ".models"
    assert dict(bound.environment)["OPENAI_API_KEY"] == "tram_x"
    assert spec_of(web, ARTIFACT).models_socket is None


def price_of(wanted: Definition, cell: Cell) -> Price:
    world = World()
    deployment = replace(
        world.deploy(wanted), artifact=replace(ARTIFACT, language=LANGUAGE, facts=TINY)
    )
    instance = Instance(
        id=InstanceId("ins_1"),
        service_id=world.service.id,
        deployment_id=deployment.id,
        cell_id=cell.id,
        created_at=world.now,
    )
    meter = make_spec(world.service, deployment, instance, cell, PATHS, {}).meter
    assert meter is not None
    return meter.account.price


def test_a_price_of_tokens_comes_before_the_cell_s_hour() -> None:
    own = Price(prompt=3)
    assert price_of(replace(MODEL, price=own), make_cell(LAPTOP, "0.12")) == own
    assert price_of(replace(MODEL, price=Price()), make_cell(LAPTOP, "0.12")) == Price()
    assert price_of(MODEL, make_cell(LAPTOP)) == Price()


def test_an_instance_costs_its_part_of_the_cell_s_memory() -> None:
    sizing = needs_of(MODEL, TINY, LAPTOP).sizing
    assert sizing is not None
    price = price_of(MODEL, make_cell(LAPTOP, "0.12"))
    assert price == Price(hour=120_000_000 * sizing.memory_bytes // LAPTOP.memory_bytes)
    # More than it has, a cell gives to nobody.
    wide = Resources(memory_bytes=2 * LAPTOP.memory_bytes)
    assert price_of_time(make_cell(LAPTOP, "0.12"), wide) == Price(hour=120_000_000)
