"""What the store promises, held against every database it runs on."""

import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tramontane.base.errors import Conflict, InvalidRequest, NotFound, Unavailable, Unsupported
from tramontane.base.ids import IdFactory, counting_ids
from tramontane.domain.artifact import Artifact, Mount
from tramontane.domain.cell import Capacity, Cell, EvidenceLevel, Fact
from tramontane.domain.definition import (
    Definition,
    DirectorySource,
    EgressRule,
    ModelSource,
    Probe,
    ProbeKind,
    Scaling,
    ServiceKind,
)
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.ids import CellId, DeploymentId, InstanceId, ServiceId
from tramontane.domain.instance import Instance, InstanceStatus
from tramontane.domain.service import Service, ServiceStatus
from tramontane.domain.snapshot import Changes, Event
from tramontane.domain.token import Scope, Token
from tramontane.store import upgrade
from tramontane.store.database import Database, parse_url, sqlite_url
from tramontane.store.events import EVENTS_KEPT
from tramontane.store.migration import HEAD, migrate, migrate_apart
from tramontane.store.requests import KEPT_S, Guard, RequestKey
from tramontane.store.snapshots import ENDED_KEPT
from tramontane.store.store import Store, open_store
from tramontane.store.tables import METADATA

DIGEST = "sha256:" + "0" * 64
ARTIFACT = Artifact(
    digest=DIGEST,
    language="python",
    command=("python", "app.py"),
    directory="/app",
    mounts=(Mount(source="/somewhere", target="/app"),),
    environment=(("A", "b"),),
)


def make_definition(**values: object) -> Definition:
    base = Definition(kind=ServiceKind.WEB, source=DirectorySource(digest=DIGEST))
    return replace(base, **values)  # type: ignore[arg-type]


@pytest.fixture
def store(store: Store) -> Store:
    """The store, with the archive that every definition here is built from."""
    store.record_source(DIGEST, 5, now=0.0)
    return store


@pytest.fixture
def ids() -> IdFactory:
    return counting_ids()


def make_instance(service: Service, number: int, **values: object) -> Instance:
    assert service.desired_deployment is not None
    base = Instance(
        id=InstanceId(f"ins_{number}"),
        service_id=service.id,
        deployment_id=service.desired_deployment,
        cell_id=CellId("cel_1"),
        created_at=float(number),
    )
    return replace(base, **values)  # type: ignore[arg-type]


def bring_up(store: Store, deployment_id: DeploymentId, service: Service) -> None:
    """Walk a deployment to healthy, as a reconciler would."""
    store.record_artifact(deployment_id, ARTIFACT)
    for status in (
        DeploymentStatus.PENDING,
        DeploymentStatus.STARTING,
        DeploymentStatus.HEALTHY,
    ):
        snapshot = store.read_snapshot(service.id)
        assert snapshot is not None
        deployment = snapshot.deployment(deployment_id)
        assert deployment is not None
        changes = Changes(deployments=(replace(deployment, status=status),))
        assert store.apply(changes, service.id, snapshot.service.generation)


def test_a_new_database_is_what_the_migrations_would_have_made(database: Path | str) -> None:
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    described: list[dict[str, object]] = []
    for make in (upgrade.upgrade, migrate):
        opened = Database(url)
        make(opened)
        opened.close()
        described.append(describe(url))
        engine = create_engine(url)
        with engine.begin() as connection:
            METADATA.drop_all(connection)
            connection.execute(text("DROP TABLE alembic_version"))
        engine.dispose()
    assert described[0] == described[1]


def test_tokens_of_an_earlier_version_are_for_all_models(tmp_path: Path) -> None:
    opened = Database(sqlite_url(tmp_path / "old.db"))
    script = str(Path(upgrade.__file__).parent / "migrations")
    config = Config()
    config.set_main_option("script_location", script)
    with opened.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO tokens (id, name, scope, token_hash, created_at, revoked) "
                "VALUES ('tok_1', 'old', 1, 'h', 1.0, false)"
            )
        )
    opened.close()
    store = open_store(tmp_path / "old.db")
    assert [each.token.models for each in store.list_tokens()] == [None]
    store.close()


def describe(url: URL) -> dict[str, object]:
    """Return everything that a database knows about its tables, and the step that it is at."""
    engine = create_engine(url)
    with engine.connect() as connection:
        known = inspect(connection)
        found: dict[str, object] = {
            name: (
                [{**each, "type": repr(each["type"])} for each in known.get_columns(name)],
                known.get_pk_constraint(name),
                sorted(known.get_foreign_keys(name), key=str),
                sorted(known.get_unique_constraints(name), key=str),
                sorted(known.get_check_constraints(name), key=str),
                sorted(known.get_indexes(name), key=str),
            )
            for name in known.get_table_names()
        }
        found["step"] = connection.execute(text("SELECT version_num FROM alembic_version")).all()
    engine.dispose()
    return found


def test_tables_of_somebody_else_are_left_alone(database: Path | str) -> None:
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE services (song TEXT)"))
    with pytest.raises(DBAPIError, match="already exists"):
        open_store(database)
    with engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["services"]
    engine.dispose()


def test_migration_runs_in_a_process_apart(database: Path | str) -> None:
    store = open_store(database)
    with store._database.write() as connection:  # as it was before the first step
        METADATA.drop_all(connection)
        connection.execute(text("DELETE FROM alembic_version"))
    store.close()
    migrate_apart(database)
    migrate_apart(database)
    store = open_store(database)
    assert store.list_projects() == []
    store.close()


@pytest.mark.parametrize("where", ["nobody listens", "no database"])
def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    where: str, tmp_path: Path
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no database at all, but long enough to be looked at " * 50)
    nobody = "postgresql://me:hunter2@127.0.0.1:1/shop"
    database, told = (nobody, "shop on 127.0.0.1") if where == "nobody listens" else (file, file)
    with pytest.raises(Unavailable, match=f"cannot open the database {told}: .") as caught:
        migrate_apart(database)
    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.next_step


def test_newest_step_is_known() -> None:
    script = ScriptDirectory(str(Path(upgrade.__file__).parent / "migrations"))
    assert script.get_current_head() == HEAD


def test_database_of_a_newer_version_is_refused(database: Path | str) -> None:
    store = open_store(database)
    with store._database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(Unsupported, match="newer version"):
        open_store(database)


def test_several_replicas_may_start_at_once(database: Path | str) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(open_store, [database] * 4))
    assert [store.list_projects() for store in stores] == [[]] * 4
    for store in stores:
        store.close()


def test_definition_comes_back_unchanged(store: Store, ids: IdFactory) -> None:
    definition = Definition(
        kind=ServiceKind.MODEL,
        source=ModelSource(reference="tiny"),
        environment=(("A", "1"), ("B", "é\n\U0001f600")),
        policy=("eu",),
        probe=Probe(kind=ProbeKind.HTTP, path="/health"),
        scaling=Scaling(instances_min=1, instances_max=3, concurrency=0.1),
        egress=(EgressRule(host="*.example.com"), EgressRule(host="b", port=1)),
    )
    _, made = store.deploy("shop", "chat", definition, now=1.5, ids=ids)
    assert store.record_artifact(made.id, ARTIFACT)
    record = store.read_service("shop", "chat")
    assert record.deployments == (replace(made, artifact=ARTIFACT),)
    assert record.deployments[0].definition == definition
    assert store.list_deployments(record.service.id) == list(record.deployments)
    assert not store.record_artifact(DeploymentId("dep_none"), ARTIFACT)


def test_deploying_the_same_again_changes_nothing(store: Store, ids: IdFactory) -> None:
    first = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    assert store.deploy("p", "web", make_definition(), now=2, ids=ids) == first
    service, second = store.deploy("p", "web", make_definition(drain_s=1.0), now=3, ids=ids)
    assert (second.number, service.generation) == (2, first[0].generation + 1)


def test_deploying_what_failed_tries_again(store: Store, ids: IdFactory) -> None:
    service, first = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    failed = replace(first, status=DeploymentStatus.FAILED, reason="build_failed")
    assert store.apply(Changes(deployments=(failed,)), service.id, service.generation)
    _, second = store.deploy("p", "web", make_definition(), now=2, ids=ids)
    assert second.number == 2


def test_deployment_resets_what_scale_and_pause_asked(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    failing = replace(service, wake_failures=3, retry_at=99.0)
    assert store.apply(Changes(service=failing), service.id, service.generation)
    store.scale("p", "web", 2, now=2)
    store.pause("p", "web", now=3)
    service, _ = store.deploy("p", "web", make_definition(drain_s=2.0), now=4, ids=ids)
    assert (service.desired_instances, service.paused, service.sleep_requested) == (
        None,
        False,
        False,
    )
    assert (service.wake_failures, service.retry_at) == (0, None)


def test_same_deployment_resumes_a_paused_service(store: Store, ids: IdFactory) -> None:
    _, first = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    store.pause("p", "web", now=2)
    service, again = store.deploy("p", "web", make_definition(), now=3, ids=ids)
    assert again == first
    assert not service.paused


def test_what_has_a_minimum_is_not_sent_to_sleep(store: Store, ids: IdFactory) -> None:
    definition = make_definition(scaling=Scaling(instances_min=1))
    store.deploy("p", "web", definition, now=1, ids=ids)
    with pytest.raises(InvalidRequest, match="would start again at once; stop it with pause"):
        store.scale("p", "web", 0, now=2)
    assert not store.read_service("p", "web").service.sleep_requested


def test_scale(store: Store, ids: IdFactory) -> None:
    store.deploy("p", "web", make_definition(), now=1, ids=ids)
    three = store.scale("p", "web", 3, now=2)
    assert (three.desired_instances, three.sleep_requested) == (3, False)
    zero = store.scale("p", "web", 0, now=2)
    assert (zero.desired_instances, zero.sleep_requested) == (None, True)
    automatic = store.scale("p", "web", None, now=2)
    assert (automatic.desired_instances, automatic.sleep_requested) == (None, False)
    assert automatic.generation == three.generation + 2
    with pytest.raises(InvalidRequest, match="at most 5") as caught:
        store.scale("p", "web", 6, now=2)
    assert caught.value.path == "instances"


def test_pause_and_resume_are_idempotent(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    assert store.resume("p", "web", now=1) == service
    paused = store.pause("p", "web", now=2)
    assert paused.paused
    assert store.pause("p", "web", now=3) == paused
    assert not store.resume("p", "web", now=4).paused


def test_rollback_finds_the_last_healthy_one(store: Store, ids: IdFactory) -> None:
    service, first = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    with pytest.raises(NotFound, match="no earlier deployment"):
        store.rollback("p", "web", None, now=1)
    bring_up(store, first.id, service)
    _, second = store.deploy("p", "web", make_definition(drain_s=2.0), now=2, ids=ids)
    service, third = store.deploy("p", "web", make_definition(drain_s=3.0), now=3, ids=ids)
    over = tuple(
        replace(each, status=DeploymentStatus.SUPERSEDED)
        for each in store.list_deployments(service.id)
        if each.id != third.id
    )
    assert store.apply(Changes(deployments=over), service.id, service.generation)
    with pytest.raises(Conflict, match="never built"):
        store.rollback("p", "web", second.number, now=4)
    with pytest.raises(NotFound, match="newest are: 3, 2, 1"):
        store.rollback("p", "web", 9, now=4)
    service, target = store.rollback("p", "web", None, now=4)
    assert service.desired_deployment == first.id
    assert (target.number, target.status, target.reason) == (
        1,
        DeploymentStatus.PENDING,
        "rolled_back",
    )
    assert store.rollback("p", "web", 1, now=5)[0] == service


def test_generation_guards_every_verb(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    old = Guard(expected_generation=service.generation - 1)
    other = make_definition(drain_s=2.0)
    for verb in (
        lambda: store.deploy("p", "web", other, now=2, ids=ids, guard=old),
        lambda: store.deploy("p", "new", other, now=2, ids=ids, guard=Guard(expected_generation=7)),
        lambda: store.scale("p", "web", 1, now=2, guard=old),
        lambda: store.pause("p", "web", now=2, guard=old),
        lambda: store.resume("p", "web", now=2, guard=old),
        lambda: store.rollback("p", "web", 1, now=2, guard=old),
        lambda: store.delete_service("p", "web", now=2, guard=old),
    ):
        with pytest.raises(Conflict, match="generation"):
            verb()
    assert store.read_service("p", "web").service == service
    assert [each.service.name for each in store.list_services()] == ["web"]
    new = Guard(expected_generation=service.generation)
    assert store.pause("p", "web", now=2, guard=new).paused


def test_missing_names_are_suggested(store: Store, ids: IdFactory) -> None:
    with pytest.raises(NotFound, match="there is none yet"):
        store.read_service("p", "web")
    store.deploy("p", "hello", make_definition(), now=1, ids=ids)
    with pytest.raises(NotFound, match="did you mean hello"):
        store.read_service("p", "helo")
    with pytest.raises(NotFound, match="did you mean hello"):
        store.scale("p", "helo", 1, now=1)
    with pytest.raises(NotFound, match="there are: p"):
        store.read_project("zzz")


def test_same_request_happens_once(store: Store, ids: IdFactory) -> None:
    guard = Guard(request=RequestKey(key="k", fingerprint="a"))
    first = store.deploy("p", "web", make_definition(), now=1, ids=ids, guard=guard)
    store.deploy("p", "web", make_definition(drain_s=2.0), now=2, ids=ids)
    _, again = store.deploy("p", "web", make_definition(), now=3, ids=ids, guard=guard)
    assert again == first[1]
    assert store.read_service("p", "web").deployments[-1].number == 2
    different = Guard(request=RequestKey(key="k", fingerprint="b"))
    with pytest.raises(Conflict, match="different request"):
        store.scale("p", "web", 1, now=3, guard=different)
    later = store.scale("p", "web", 1, now=2 + KEPT_S, guard=different)
    assert later.desired_instances == 1


def test_deletion_ends_when_no_instance_is_left(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    instance = make_instance(service, 1)
    assert store.apply(Changes(instances=(instance,)), service.id, service.generation)
    deleted = store.delete_service("p", "web", now=2)
    assert (deleted.deleted, deleted.status) == (True, ServiceStatus.DELETING)
    assert store.delete_service("p", "web", now=2) == deleted
    with pytest.raises(Conflict, match="being deleted"):
        store.deploy("p", "web", make_definition(), now=2, ids=ids)
    with pytest.raises(Conflict, match="still has services"):
        store.delete_project("p")
    assert not store.finish_delete(service.id)
    failed = replace(instance, status=InstanceStatus.FAILED, ended_at=3.0)
    assert store.apply(Changes(instances=(failed,)), service.id, deleted.generation)
    assert store.finish_delete(service.id)
    assert store.finish_delete(service.id)
    assert store.read_snapshot(service.id) is None
    assert store.list_services() == []
    fresh, deployment = store.deploy("p", "web", make_definition(), now=4, ids=ids)
    assert fresh.id != service.id
    assert deployment.number == 1
    store.delete_service("p", "web", now=5)
    store.finish_delete(fresh.id)
    store.delete_project("p")
    assert store.list_projects() == []


def test_snapshot_and_apply(store: Store, ids: IdFactory) -> None:
    cell = Cell(
        id=CellId("cel_1"),
        name="here",
        runtime="process",
        isolation="sandbox",
        capacity=Capacity(memory_bytes=2**34, cpus=2.0),
    )
    store.upsert_cell(cell)
    store.set_project_policy("p", ("eu",), now=1)
    service, deployment = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    snapshot = store.read_snapshot(service.id)
    assert snapshot is not None
    assert (snapshot.service, snapshot.project_policy) == (service, ("eu",))
    assert (snapshot.deployments, snapshot.cells) == ((deployment,), (cell,))
    assert store.read_snapshot(service.id, []).cells == ()  # type: ignore[union-attr]
    instance = make_instance(service, 1)
    event = Event(at=1, service_id=service.id, subject="ins_1", reason="placed", message="m")
    observed = replace(
        service,
        status=ServiceStatus.STARTING,
        reason="starting",
        route_generation=4,
        # Columns of the desired side are not the reconciler's to write.
        desired_instances=3,
        paused=True,
        sleep_requested=True,
        generation=99,
    )
    changes = Changes(service=observed, instances=(instance,), events=(event,))
    assert store.apply(changes, service.id, service.generation)
    record = store.read_service("p", "web")
    assert record.service == replace(
        service, status=ServiceStatus.STARTING, reason="starting", route_generation=4
    )
    assert record.instances == (instance,)
    assert store.list_events(service.id)[-1] == event
    assert store.read_memory_used() == {cell.id: 512 * 1024**2}
    assert store.count_instances() == {cell.id: 1}


def test_apply_refuses_an_old_generation_whole(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    store.scale("p", "web", 2, now=2)
    changes = Changes(instances=(make_instance(service, 1),))
    assert not store.apply(changes, service.id, service.generation)
    assert store.read_service("p", "web").instances == ()
    assert not store.apply(changes, ServiceId("svc_none"), 1)


def test_apply_uses_up_the_wish_to_sleep(store: Store, ids: IdFactory) -> None:
    store.deploy("p", "web", make_definition(), now=1, ids=ids)
    asleep = store.scale("p", "web", 0, now=2)
    woken = replace(asleep, sleep_requested=False)
    assert store.apply(Changes(service=woken), asleep.id, asleep.generation)
    assert not store.read_service("p", "web").service.sleep_requested


def test_apply_fails_on_a_transition_that_may_not_be(store: Store, ids: IdFactory) -> None:
    service, deployment = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    # Several steps may fall into one write, but only along the arrows of the table.
    healthy = replace(deployment, status=DeploymentStatus.HEALTHY)
    assert store.apply(Changes(deployments=(healthy,)), service.id, service.generation)
    wrong = replace(deployment, status=DeploymentStatus.BUILDING)
    with pytest.raises(AssertionError, match="may not go from healthy to building"):
        store.apply(Changes(deployments=(wrong,)), service.id, service.generation)
    instance = make_instance(service, 1, status=InstanceStatus.STOPPING)
    store.apply(Changes(instances=(instance,)), service.id, service.generation)
    back = replace(instance, status=InstanceStatus.HEALTHY)
    with pytest.raises(AssertionError, match="may not go from stopping to healthy"):
        store.apply(Changes(instances=(back,)), service.id, service.generation)
    assert store.read_service("p", "web").instances == (instance,)


def test_apply_never_takes_an_artifact_away(store: Store, ids: IdFactory) -> None:
    service, stale = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    store.record_artifact(stale.id, ARTIFACT)
    assert store.apply(Changes(deployments=(stale,)), service.id, service.generation)
    assert store.read_service("p", "web").deployments[0].artifact == ARTIFACT


def test_a_failed_build_overtakes_decisions_made_before(store: Store, ids: IdFactory) -> None:
    service, stale = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    assert store.record_build_failure(stale.id, "build_failed", "no app.py", 2.0)
    assert not store.record_build_failure(stale.id, "build_failed", "no app.py", 2.0)
    assert not store.apply(Changes(deployments=(stale,)), service.id, service.generation)
    failed = store.read_deployment(stale.id)
    assert failed is not None
    assert (failed.status, failed.message) == (DeploymentStatus.FAILED, "no app.py")
    assert store.list_events(service.id)[-1].message == "no app.py"
    assert store.read_deployment(DeploymentId("dep_none")) is None


def test_no_error_quotes_what_was_to_be_stored(
    database: Path | str, store: Store, ids: IdFactory
) -> None:
    """Errors end in logs; a definition holds the values of variables."""
    definition = make_definition(environment=(("PASSWORD", "hunter2"),))
    store.deploy("shop", "web", definition, now=1, ids=ids)
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE deployments RENAME COLUMN artifact TO elsewhere"))
    with pytest.raises(SQLAlchemyError) as failure:
        store.deploy("shop", "web", replace(definition, command="other"), now=2, ids=ids)
    assert "hunter2" not in str(failure.value)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE deployments RENAME COLUMN elsewhere TO artifact"))
        damage = "UPDATE deployments SET definition = replace(definition, '\"web\"', '\"spider\"')"
        connection.execute(text(damage))
    engine.dispose()
    with pytest.raises(ValueError, match="cannot be read at: kind") as damaged:
        store.read_service("shop", "web")
    assert "hunter2" not in "".join(traceback.format_exception(damaged.value))


def test_a_claimed_request_is_refused(store: Store) -> None:
    store.claim_request(None, now=1)
    store.claim_request(RequestKey(key="k", fingerprint="f"), now=1)
    with pytest.raises(Conflict, match="already carried out"):
        store.claim_request(RequestKey(key="k", fingerprint="f"), now=1)


def test_only_the_last_ended_instances_and_events_are_kept(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    ended = tuple(
        make_instance(service, number, status=InstanceStatus.FAILED, ended_at=float(number))
        for number in range(ENDED_KEPT + 5)
    )
    live = make_instance(service, 1000)
    events = tuple(
        Event(at=at, service_id=service.id, subject="x", reason="r", message=str(at))
        for at in range(EVENTS_KEPT + 5)
    )
    changes = Changes(instances=(live, *ended), events=events)
    assert store.apply(changes, service.id, service.generation)
    assert store.list_instances(service.id) == [*ended[5:], live]
    kept = store.list_events(service.id)
    assert len(kept) == EVENTS_KEPT
    assert [each.message for each in kept[-2:]] == ["203", "204"]
    assert store.list_events(service.id, limit=1) == kept[-1:]


def test_cells(store: Store) -> None:
    fact = Fact(
        attribute="country", value="DE", evidence=EvidenceLevel.CLAIM, source="me", recorded_at=1.0
    )
    cell = Cell(
        id=CellId("cel_1"),
        name="here",
        runtime="process",
        isolation="none",
        capacity=Capacity(memory_bytes=1, cpus=1.0),
    )
    store.upsert_cell(cell)
    store.upsert_cell(replace(cell, facts=(fact,), reachable=False))
    assert store.list_cells() == [replace(cell, facts=(fact,), reachable=False)]
    assert store.read_cell("here").facts == (fact,)
    with pytest.raises(NotFound, match="did you mean here"):
        store.read_cell("her")
    store.remove_cell(cell.id)
    assert store.list_cells() == []


def test_tokens(store: Store) -> None:
    token = Token(
        id="tok_1", name="n", project="p", scope=Scope.READ, token_hash="h", created_at=1.0
    )
    request = RequestKey(key="k", fingerprint="f")
    store.add_token(token, request=request)
    with pytest.raises(Conflict, match="only once"):
        store.add_token(replace(token, id="tok_2", token_hash="i"), request=request)
    store.add_token(replace(token, id="tok_3", token_hash="j", project=None))
    limited = replace(token, id="tok_4", token_hash="l", project="q", models=("a", "org/b"))
    store.add_token(limited)
    assert [each.token for each in store.list_tokens("q")] == [limited]
    found = store.find_token("h")
    assert found is not None
    assert (found.token, found.last_used_at) == (token, None)
    assert store.find_token("x") is None
    store.touch_token("tok_1", 5.0)
    assert [each.last_used_at for each in store.list_tokens("p")] == [5.0]
    assert [each.token.id for each in store.list_tokens()] == ["tok_1", "tok_3", "tok_4"]
    with pytest.raises(NotFound):
        store.revoke_token("tok_3", project="p")
    assert store.revoke_token("tok_1", project="p").revoked
    assert store.revoke_token("tok_1").revoked
    assert store.list_revoked_ids() == {"tok_1"}


def test_settings_and_sources(store: Store) -> None:
    assert store.read_setting("country") is None
    store.write_setting("country", "DE")
    store.write_setting("country", "FR")
    assert store.read_setting("country") == "FR"
    other = "sha256:" + "1" * 64
    assert store.read_source(other) is None
    made = store.record_source(other, 5, now=1.0)
    store.record_source(other, 5, now=2.0)
    assert store.read_source(other) == made


def test_leases(store: Store) -> None:
    assert store.acquire_lease("web", "a", ttl_s=10, now=100)
    assert not store.acquire_lease("web", "b", ttl_s=10, now=109)
    assert store.read_lease_holder("web", now=109) == "a"
    assert store.acquire_lease("web", "a", ttl_s=10, now=105)
    assert store.renew_lease("web", "a", ttl_s=10, now=114)
    assert not store.renew_lease("web", "b", ttl_s=10, now=114)
    assert store.acquire_lease("web", "b", ttl_s=10, now=124)
    assert not store.renew_lease("web", "a", ttl_s=10, now=124)
    store.release_lease("web", "a")
    assert store.read_lease_holder("web", now=124) == "b"
    store.release_lease("web", "b")
    assert store.acquire_lease("web", "a", ttl_s=10, now=125)


def test_one_of_many_gets_the_lease(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(
            pool.map(
                lambda holder: store.acquire_lease("x", str(holder), ttl_s=5, now=1), range(16)
            )
        )
    assert won.count(True) == 1


def test_concurrent_deployments_get_distinct_numbers(store: Store, ids: IdFactory) -> None:
    def deploy(number: int) -> int:
        definition = make_definition(drain_s=float(number))
        return store.deploy("p", "web", definition, now=1, ids=ids)[1].number

    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(deploy, range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert store.read_service("p", "web").service.generation == 24


def test_project_policy_moves_every_generation(store: Store, ids: IdFactory) -> None:
    service, _ = store.deploy("p", "web", make_definition(), now=1, ids=ids)
    assert store.ensure_project("p", now=2).policy == ()
    assert store.set_project_policy("p", ("eu",), now=2).policy == ("eu",)
    store.set_project_policy("p", ("eu",), now=3)
    record = store.read_service("p", "web")
    assert record.project_policy == ("eu",)
    assert record.service.generation == service.generation + 1
    assert store.read_project("p").services == 1


def test_reads_see_one_moment(store: Store, ids: IdFactory, database: Path | str) -> None:
    store.deploy("p", "web", make_definition(), now=1, ids=ids)
    with store._database.read() as connection:
        count = text("SELECT count(*) FROM services")
        before = connection.execute(count).scalar()
        store.deploy("p", "other", make_definition(), now=1, ids=ids)
        assert connection.execute(count).scalar() == before
