"""The app against its own published contract, with inputs that schemathesis makes up.

In process and bounded: what is looked for is an answer of 500 or one that the contract does not
describe, not every input there is.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from api_world import World, build_world
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tramontane.domain.definition import Definition, ModelSource, ServiceKind
from tramontane.domain.token import Scope
from tramontane.store.store import open_store


@schemathesis.serializer("application/gzip")
def write_archive(ctx: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode()


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("api")
    store = open_store(directory / "tramontane.db")
    yield build_world(store, directory)
    store.close()


def test_every_operation_keeps_the_contract(world: World) -> None:
    contract = schemathesis.openapi.from_asgi("/api/v1/openapi.json", world.app)
    token = world.mint(Scope.ADMIN)
    tried = 0
    for result in contract.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        # A watch does not end; it has tests of its own.
        if operation.path != "/api/v1/watch":
            try_operation(world, operation, token)
            tried += 1
    assert tried > 25


def try_operation(world: World, operation: Any, token: str) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
        ],
    )
    @given(case=operation.as_strategy(), known=st.booleans())
    def run(case: Any, known: bool) -> None:
        if known and case.path_parameters:
            # Otherwise almost every answer would be 404.
            names = {"project": "shop", "name": "chat"}
            case.path_parameters |= {k: v for k, v in names.items() if k in case.path_parameters}
            deploy(world)
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}
        case.validate_response(case.call(), checks=CHECKS)

    run()


def deploy(world: World) -> None:
    """Have a service, whatever the last example did to it."""
    for record in world.store.list_services("shop"):
        if record.service.deleted:
            world.store.finish_delete(record.service.id)
    definition = Definition(kind=ServiceKind.MODEL, source=ModelSource(reference="tiny"))
    world.store.deploy("shop", "chat", definition, now=1.0, ids=world.parts.ids)
