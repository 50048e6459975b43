"""Old rows go, and never one that something refers to: held against every database."""

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import delete, select, text

from tramontane.base.errors import InvalidRequest
from tramontane.base.ids import counting_ids, random_id
from tramontane.domain.artifact import Artifact
from tramontane.domain.definition import (
    Definition,
    DirectorySource,
    ModelSource,
    ResourceWishes,
    ServiceKind,
)
from tramontane.domain.deployment import Deployment, DeploymentStatus
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Changes
from tramontane.plan.retention import plan_retention
from tramontane.store import upgrade
from tramontane.store.database import Database, parse_url, sqlite_url
from tramontane.store.sources import hold_source
from tramontane.store.store import Store, open_store
from tramontane.store.tables import DEPLOYMENTS, METADATA, SOURCES

MODEL = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="tiny"))


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def artifact(number: int) -> Artifact:
    return Artifact(
        digest=f"sha256:a{number}", language="static", command=("x",), directory="/", mounts=()
    )


def definition(number: int) -> Definition:
    return Definition(kind=ServiceKind.WEB, source=DirectorySource(digest=digest(number)))


def deploy(
    store: Store, number: int, status: DeploymentStatus | None = None, name: str = "web"
) -> tuple[Service, Deployment]:
    """Deploy archive ``number``, built, and move the one before out of the way."""
    store.record_source(digest(number), 5, now=0.0)
    service, deployment = store.deploy("p", name, definition(number), now=number, ids=random_id)
    assert store.record_artifact(deployment.id, artifact(number))
    if status is not None:
        ended = replace(deployment, status=status)
        assert store.apply(Changes(deployments=(ended,)), service.id, service.generation)
    return service, deployment


def histories(store: Store, kept: int) -> dict[ServiceId, list[int]]:
    return {
        each.service_id: [past.number for past in each.deployments]
        for each in store.list_histories(kept)
    }


def run_instance(store: Store, service: Service, deployment: Deployment) -> Instance:
    instance = Instance(
        id=InstanceId("ins_1"),
        service_id=service.id,
        deployment_id=deployment.id,
        cell_id=CellId("cel_1"),
        created_at=1.0,
    )
    assert store.apply(Changes(instances=(instance,)), service.id, service.generation)
    return instance


def test_only_services_with_many_deployments_are_read(store: Store) -> None:
    service, _ = [deploy(store, number) for number in range(4)][-1]
    deploy(store, 0, name="few")
    assert histories(store, 4) == {service.id: [4, 3, 2, 1]}
    assert histories(store, 5) == {}
    (history,) = store.list_histories(4)
    assert (history.generation, history.desired) == (
        service.generation,
        service.desired_deployment,
    )
    store.delete_service("p", "web", now=9)
    assert histories(store, 4) == {}


def test_a_history_says_what_retention_asks(store: Store) -> None:
    service, first = deploy(store, 1, DeploymentStatus.PENDING)
    for status in (DeploymentStatus.STARTING, DeploymentStatus.HEALTHY):
        found = store.read_deployment(first.id)
        assert found is not None
        changes = Changes(
            service=replace(service, serving_deployment=first.id),
            deployments=(replace(found, status=status),),
        )
        assert store.apply(changes, service.id, service.generation)
    service, second = deploy(store, 2)
    run_instance(store, service, first)
    (history,) = store.list_histories(2)
    assert (history.desired, history.serving) == (second.id, first.id)
    facts = [(each.id, each.status, each.was_healthy, each.live) for each in history.deployments]
    assert facts == [
        (second.id, DeploymentStatus.BUILDING, False, False),
        (first.id, DeploymentStatus.HEALTHY, True, True),
    ]


def test_forgetting_deletes_what_is_over_and_nothing_else(store: Store) -> None:
    _, over = deploy(store, 1, DeploymentStatus.SUPERSEDED)
    _, building = deploy(store, 2)
    _, failed = deploy(store, 3, DeploymentStatus.FAILED)
    service, live = deploy(store, 4)
    ended = replace(live, status=DeploymentStatus.SUPERSEDED)
    run_instance(store, service, live)
    assert store.apply(Changes(deployments=(ended,)), service.id, service.generation)
    every = [each.id for each in (over, building, failed, live)]
    assert store.forget_deployments(service.id, every, service.generation) == 2
    left = {each.id for each in store.list_deployments(service.id)}
    assert left == {building.id, live.id}
    assert store.forget_deployments(service.id, every, service.generation) == 0
    assert store.forget_deployments(ServiceId("svc_none"), every, 1) == 0


def test_a_rollback_keeps_what_was_about_to_be_forgotten(store: Store) -> None:
    _, first = deploy(store, 1, DeploymentStatus.SUPERSEDED)
    for number in (2, 3):
        deploy(store, number, DeploymentStatus.SUPERSEDED)
    (history,) = store.list_histories(3)
    old = plan_retention(history, 1)
    assert first.id in old
    service, target = store.rollback("p", "web", 1, now=9)
    assert target.id == first.id
    assert store.forget_deployments(service.id, old, history.generation) == 0
    assert store.read_deployment(first.id) is not None
    (history,) = store.list_histories(3)
    assert first.id not in plan_retention(history, 1)


def test_numbers_go_on_counting(store: Store) -> None:
    for number in range(1, 6):
        deploy(store, number, DeploymentStatus.SUPERSEDED)
    (history,) = store.list_histories(2)
    old = plan_retention(history, 1)
    assert store.forget_deployments(history.service_id, old, history.generation) == 4
    assert deploy(store, 6)[1].number == 6


def test_a_plan_about_a_forgotten_deployment_is_dropped(store: Store) -> None:
    _, first = deploy(store, 1, DeploymentStatus.FAILED)
    service, _ = deploy(store, 2)
    assert store.forget_deployments(service.id, [first.id], service.generation) == 1
    stale = replace(first, status=DeploymentStatus.FAILED, message="seen before it was forgotten")
    assert not store.apply(Changes(deployments=(stale,)), service.id, service.generation)
    assert not store.record_artifact(first.id, artifact(1))


def test_references_name_all_that_rows_need(store: Store) -> None:
    service, first = deploy(store, 1)
    run_instance(store, service, first)
    model, _ = store.deploy("p", "chat", MODEL, now=2, ids=random_id)
    found = store.read_references()
    assert found.archives == {digest(1)}
    assert found.artifacts == {"sha256:a1"}
    assert found.services == {service.id, model.id}
    assert {first.id} < found.deployments
    assert found.instances == {"ins_1"}
    assert store.is_artifact_named("sha256:a1")
    assert not store.is_artifact_named("sha256:a2")
    store.delete_service("p", "chat", now=3)
    assert store.finish_delete(model.id)
    assert store.read_references().services == {service.id}


def test_an_archive_is_forgotten_only_when_no_deployment_names_it(store: Store) -> None:
    with pytest.raises(InvalidRequest, match="upload it first") as caught:
        store.deploy("p", "web", definition(1), now=1, ids=random_id)
    assert caught.value.path == "definition.source.digest"
    assert store.list_services() == [], "bad input changes nothing"
    service, _ = deploy(store, 1)
    other, _ = deploy(store, 1, name="same")
    for each, name in ((service, "web"), (other, "same")):
        assert not store.forget_source(digest(1))
        assert store.read_source(digest(1)) is not None
        store.delete_service("p", name, now=2)
        assert store.finish_delete(each.id)
    assert store.forget_source(digest(1))
    assert store.read_source(digest(1)) is None
    assert store.forget_source(digest(1)), "there is none: whatever is on disk may go"


def test_deployments_and_collections_at_once_leave_none_without_its_archive(store: Store) -> None:
    """Many threads deploy three archives while others forget them: each side may fail, cleanly."""
    rounds = 40

    def deploy_some(seed: int) -> int:
        randomness, done = random.Random(seed), 0
        for turn in range(rounds):
            number = randomness.randrange(3)
            try:
                # What differs makes it a new deployment each time.
                wanted = replace(definition(number), drain_s=float(seed * rounds + turn))
                store.deploy("p", f"s{seed}", wanted, now=1, ids=random_id)
                done += 1
            except InvalidRequest:
                store.record_source(digest(number), 5, now=1)
        return done

    def forget_some(seed: int) -> int:
        randomness, done = random.Random(seed), 0
        for _ in range(rounds):
            done += store.forget_source(digest(randomness.randrange(3)))
            for history in store.list_histories(1):
                old = tuple(each.id for each in history.deployments if each.id != history.desired)
                over = tuple(
                    replace(each, status=DeploymentStatus.SUPERSEDED)
                    for each in store.list_deployments(history.service_id)
                    if each.id in old and each.status is DeploymentStatus.BUILDING
                )
                store.apply(Changes(deployments=over), history.service_id, history.generation)
                store.forget_deployments(history.service_id, old, history.generation)
        return done

    with ThreadPoolExecutor(4) as pool:
        deploying = [pool.submit(deploy_some, seed) for seed in range(2)]
        forgetting = [pool.submit(forget_some, seed) for seed in range(2, 4)]
        deployed = sum(each.result() for each in deploying)
        forgotten = sum(each.result() for each in forgetting)
    assert deployed
    assert forgotten
    references = store.read_references()
    missing = [each for each in references.archives if store.read_source(each) is None]
    assert missing == []


def wait_until_blocked(store: Store, doing: "Future[object]") -> None:
    """Wait until the other thread waits for a row of ours, or is done because it did not."""
    deadline = time.monotonic() + 10.0
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    # SQLite lets one transaction write at a time, so there is nothing to see and to wait for.
    while not store._database.is_sqlite and not doing.done():
        with store._database.read() as connection:
            if connection.execute(waiting).scalar():
                return
        assert time.monotonic() < deadline, "the other thread neither waits nor ends"


def test_a_deployment_in_the_middle_keeps_its_archive(store: Store) -> None:
    store.record_source(digest(1), 5, now=0.0)
    with ThreadPoolExecutor(1) as pool:
        forgetting: list[Future[object]] = []

        def ids(kind: str) -> str:
            # The deployment has its archive in its hands now, and no row yet.
            if kind == "dep":
                forgetting.append(pool.submit(store.forget_source, digest(1)))
                wait_until_blocked(store, forgetting[0])
            return random_id(kind)

        store.deploy("p", "web", definition(1), now=1, ids=ids)
        assert forgetting[0].result() is False
    assert store.read_source(digest(1)) is not None


def test_a_deployment_after_the_archive_was_forgotten_is_told_so(store: Store) -> None:
    store.record_source(digest(1), 5, now=0.0)
    with ThreadPoolExecutor(1) as pool:
        with store._database.write() as connection:
            assert hold_source(connection, digest(1))
            deploying: Future[object] = pool.submit(
                store.deploy, "p", "web", definition(1), now=1, ids=random_id
            )
            wait_until_blocked(store, deploying)
            connection.execute(delete(SOURCES).where(SOURCES.c.digest == digest(1)))
        with pytest.raises(InvalidRequest, match="upload it first"):
            deploying.result()
    assert store.list_services() == []


def test_columns_are_filled_from_what_an_older_version_wrote(database: Path | str) -> None:
    store = open_store(database)
    ids = counting_ids()
    store.record_source(digest(1), 5, now=0.0)
    _, built = store.deploy("p", "built", definition(1), now=1, ids=ids)
    assert store.record_artifact(built.id, artifact(1))
    _, model = store.deploy("p", "model", MODEL, now=1, ids=ids)
    store.close()
    undo(database)
    store = open_store(database)
    with store._database.read() as connection:
        columns = (DEPLOYMENTS.c.id, DEPLOYMENTS.c.source_digest, DEPLOYMENTS.c.artifact_digest)
        rows = {row[0]: (row[1], row[2]) for row in connection.execute(select(*columns))}
    assert rows == {built.id: (digest(1), "sha256:a1"), model.id: (None, None)}
    assert store.read_deployment(DeploymentId(built.id)) is not None
    store.close()


def test_models_that_were_stored_with_the_usual_limits_are_sized(database: Path | str) -> None:
    usual = ResourceWishes(memory_bytes=512 * 1024**2, cpus=1.0)
    chosen = ResourceWishes(memory_bytes=2**30, cpus=1.0, processes_max=64)
    store = open_store(database)
    ids = counting_ids()
    store.record_source(digest(1), 5, now=0.0)
    wanted = {
        "web": replace(definition(1), resources=usual),
        "model": replace(MODEL, resources=usual),
        "chosen": replace(MODEL, resources=chosen),
    }
    for name, each in wanted.items():
        store.deploy("p", name, each, now=1, ids=ids)
    store.close()
    undo(database)
    store = open_store(database)
    found = {
        record.service.name: record.deployments[0].definition for record in store.list_services()
    }
    assert found == {
        "web": wanted["web"],
        "model": replace(MODEL, resources=ResourceWishes()),
        "chosen": replace(MODEL, resources=replace(chosen, cpus=None)),
    }
    again = store.deploy("p", "model", MODEL, now=2, ids=ids)[1]
    assert again.number == 1, "deployed again, it is what is there"
    store.close()


FIRST_TABLES = frozenset(
    {"cells", "deployments", "events", "instances", "leases", "projects", "requests"}
    | {"services", "settings", "sources", "tokens"}
)
LATER_COLUMNS = (("tokens", "models"), ("tokens", "limits"))
"""Beside the indexed ones."""


def undo(database: Path | str) -> None:
    """Bring a database back to the tables of the first version."""
    opened = Database(sqlite_url(database) if isinstance(database, Path) else parse_url(database))
    with opened.write() as connection:
        for name in METADATA.tables.keys() - FIRST_TABLES:
            connection.execute(text(f"DROP TABLE {name}"))
        for name in ("source_digest", "artifact_digest"):
            connection.execute(text(f"DROP INDEX ix_deployments_{name}"))
            connection.execute(text(f"ALTER TABLE deployments DROP COLUMN {name}"))
        for table, name in LATER_COLUMNS:
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {name}"))
        config = Config()
        config.set_main_option("script_location", str(Path(upgrade.__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.stamp(config, "0001", purge=True)
    opened.close()


def test_the_deployment_of_a_live_instance_is_never_forgotten(store: Store) -> None:
    _, first = deploy(store, 1)
    service, _ = deploy(store, 2)
    instance = run_instance(store, service, first)
    over = replace(first, status=DeploymentStatus.SUPERSEDED)
    assert store.apply(Changes(deployments=(over,)), service.id, service.generation)
    steps = (
        *(InstanceStatus.STARTING, InstanceStatus.HEALTHY),
        *(InstanceStatus.DRAINING, InstanceStatus.STOPPING),
    )
    for status in steps:
        assert store.forget_deployments(service.id, [first.id], service.generation) == 0
        instance = replace(instance, status=status)
        assert store.apply(Changes(instances=(instance,)), service.id, service.generation)
    assert store.forget_deployments(service.id, [first.id], service.generation) == 0
    ended = replace(instance, status=InstanceStatus.STOPPED, ended_at=9.0)
    assert store.apply(Changes(instances=(ended,)), service.id, service.generation)
    assert store.forget_deployments(service.id, [first.id], service.generation) == 1


def test_weights_are_needed_by_what_serves_runs_or_is_on_its_way(store: Store) -> None:
    def model(reference: str, name: str) -> tuple[Service, Deployment]:
        wanted = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference=reference))
        return store.deploy("p", name, wanted, now=1, ids=random_id)

    deploy(store, 1)
    service, first = model("hf://o/r@1", "chat")
    healthy = replace(first, status=DeploymentStatus.HEALTHY)
    serving = replace(service, serving_deployment=first.id)
    changes = Changes(service=serving, deployments=(healthy,))
    assert store.apply(changes, service.id, service.generation)
    service, second = model("hf://o/r@2", "chat")
    model("hf://o/r@2", "other")
    assert store.list_weights_users() == {
        "hf://o/r@1": ("p/chat",),
        "hf://o/r@2": ("p/chat", "p/other"),
    }
    over = replace(first, status=DeploymentStatus.SUPERSEDED)
    serving = replace(service, serving_deployment=second.id)
    changes = Changes(service=serving, deployments=(over,))
    assert store.apply(changes, service.id, service.generation)
    assert store.list_weights_users() == {"hf://o/r@2": ("p/chat", "p/other")}
    live = Instance(
        id=InstanceId("ins_1"),
        service_id=service.id,
        deployment_id=first.id,
        cell_id=CellId("cel_1"),
        created_at=1.0,
        status=InstanceStatus.STOPPING,
    )
    assert store.apply(Changes(instances=(live,)), service.id, service.generation)
    assert "hf://o/r@1" in store.list_weights_users()


def test_going_back_to_a_model_prepares_it_anew(store: Store) -> None:
    wanted = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="hf://o/r@1"))
    service, first = store.deploy("p", "chat", wanted, now=1, ids=random_id)
    assert store.record_artifact(first.id, artifact(1))
    over = replace(first, status=DeploymentStatus.SUPERSEDED)
    assert store.apply(Changes(deployments=(over,)), service.id, service.generation)
    newer = replace(wanted, source=ModelSource(reference="hf://o/r@2"))
    store.deploy("p", "chat", newer, now=2, ids=random_id)
    _, target = store.rollback("p", "chat", 1, now=3)
    assert (target.status, target.artifact) == (DeploymentStatus.BUILDING, None)
    assert store.read_deployment(first.id) == target
    assert store.read_references().artifacts == set()
