"""Any sequence of what users ask leaves the store as a model of a few lines says.

SQLite in a temporary directory: no socket, no server, no sleep.
"""

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tramontane.base.errors import Conflict, NotFound
from tramontane.base.ids import counting_ids
from tramontane.domain.definition import Definition, ModelSource, Scaling, ServiceKind
from tramontane.domain.deployment import DeploymentStatus
from tramontane.domain.snapshot import Changes
from tramontane.store.requests import Guard
from tramontane.store.store import Store, open_store

NAMES = st.sampled_from(["a", "b"])
DEFINITIONS = st.sampled_from([1.0, 2.0, 3.0])


@dataclass(frozen=True)
class Expected:
    """The desired side of one service, as the model has it."""

    definitions: tuple[float, ...]
    desired: int
    generation: int
    instances: int | None = None
    sleep: bool = False
    paused: bool = False
    deleted: bool = False


def make_definition(drain_s: float) -> Definition:
    return Definition(
        kind=ServiceKind.WEB,
        source=ModelSource(reference="tiny"),
        drain_s=drain_s,
        scaling=Scaling(instances_max=3),
    )


class StoreMachine(RuleBasedStateMachine):
    template: Path

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        path = self.directory / "tramontane.db"
        shutil.copy(self.template, path)
        self.store: Store = open_store(path)
        self.ids = counting_ids()
        self.model: dict[str, Expected] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    @rule(name=NAMES, drain_s=DEFINITIONS)
    def deploy(self, name: str, drain_s: float) -> None:
        known = self.model.get(name)
        if known is not None and known.deleted:
            with pytest.raises(Conflict):
                self.store.deploy("p", name, make_definition(drain_s), now=1, ids=self.ids)
            return
        _, deployment = self.store.deploy("p", name, make_definition(drain_s), now=1, ids=self.ids)
        if known is None:
            self.model[name] = Expected((drain_s,), desired=1, generation=1)
        elif known.definitions[known.desired - 1] == drain_s:
            if known.paused:
                self.model[name] = replace(known, paused=False, generation=known.generation + 1)
        else:
            definitions = (*known.definitions, drain_s)
            self.model[name] = Expected(
                definitions, desired=len(definitions), generation=known.generation + 1
            )
        assert deployment.number == self.model[name].desired

    @rule(name=NAMES, instances=st.sampled_from([None, 0, 1, 3]))
    def scale(self, name: str, instances: int | None) -> None:
        if known := self.expect_live(name, lambda: self.store.scale("p", name, instances, now=1)):
            self.model[name] = replace(
                known,
                instances=instances or None,
                sleep=instances == 0,
                generation=known.generation + 1,
            )

    @rule(name=NAMES)
    def pause(self, name: str) -> None:
        known = self.expect_live(name, lambda: self.store.pause("p", name, now=1))
        if known and not known.paused:
            self.model[name] = replace(known, paused=True, generation=known.generation + 1)

    @rule(name=NAMES)
    def resume(self, name: str) -> None:
        known = self.expect_live(name, lambda: self.store.resume("p", name, now=1))
        if known and (known.paused or known.instances is not None or known.sleep):
            self.model[name] = self.automatic(known)

    @rule(name=NAMES, number=st.integers(1, 4))
    def rollback(self, name: str, number: int) -> None:
        known = self.model.get(name)
        if known is None or known.deleted or number > len(known.definitions):
            with pytest.raises((NotFound, Conflict)):
                self.store.rollback("p", name, number, now=1)
            return
        self.store.rollback("p", name, number, now=1)
        if number != known.desired or known.paused:
            self.model[name] = replace(self.automatic(known), desired=number)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        known = self.model.get(name)
        if known is None:
            with pytest.raises(NotFound):
                self.store.delete_service("p", name, now=1)
            return
        self.store.delete_service("p", name, now=1)
        if not known.deleted:
            self.model[name] = replace(known, deleted=True, generation=known.generation + 1)

    @rule(name=NAMES)
    def finish_delete(self, name: str) -> None:
        known = self.model.get(name)
        if known is not None and known.deleted:
            assert self.store.finish_delete(self.store.read_service("p", name).service.id)
            del self.model[name]

    @rule(name=NAMES)
    def ask_with_an_old_generation(self, name: str) -> None:
        known = self.model.get(name)
        if known is not None and not known.deleted:
            guard = Guard(expected_generation=known.generation - 1)
            with pytest.raises(Conflict):
                self.store.scale("p", name, 1, now=1, guard=guard)

    @rule(name=NAMES)
    def reconcile(self, name: str) -> None:
        """The observed side moves; the desired one must not."""
        if name in self.model:
            record = self.store.read_service("p", name)
            moved = tuple(
                replace(each, status=DeploymentStatus.PENDING)
                for each in record.deployments
                if each.status is DeploymentStatus.BUILDING
            )
            observed = replace(record.service, reason="looked", paused=not record.service.paused)
            changes = Changes(service=observed, deployments=moved)
            assert self.store.apply(changes, record.service.id, record.service.generation)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {record.service.name: record for record in self.store.list_services()}
        assert found.keys() == self.model.keys()
        for name, expected in self.model.items():
            service = found[name].service
            desired = found[name].deployment(service.desired_deployment)
            assert desired is not None
            seen = Expected(
                tuple(
                    each.definition.drain_s
                    for each in reversed(self.store.list_deployments(service.id))
                ),
                desired.number,
                service.generation,
                service.desired_instances,
                service.sleep_requested,
                service.paused,
                service.deleted,
            )
            assert seen == expected

    def expect_live(self, name: str, verb: object) -> Expected | None:
        assert callable(verb)
        known = self.model.get(name)
        if known is None:
            with pytest.raises(NotFound):
                verb()
            return None
        if known.deleted:
            with pytest.raises(Conflict):
                verb()
            return None
        verb()
        return known

    @staticmethod
    def automatic(known: Expected) -> Expected:
        return replace(
            known, instances=None, sleep=False, paused=False, generation=known.generation + 1
        )


def test_sequences(tmp_path: Path) -> None:
    template = tmp_path / "template.db"
    open_store(template).close()
    machine = type("Machine", (StoreMachine,), {"template": template})
    machine.TestCase.settings = settings(
        max_examples=25,
        stateful_step_count=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    test = machine.TestCase()
    test.runTest()
