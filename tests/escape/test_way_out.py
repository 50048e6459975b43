"""Attempts to get back into the host through the proxy that leads out of the sandbox.

The attacker is somebody who may deploy: the manifest names whatever the attack asks for.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.beds import ProcessBed
from tests.escape.attacks import WAY_OUT, WAY_OUT_HOSTS
from tests.escape.test_attacks import all_attacks, printed_by, refusals
from tests.integration.gateway.bed import Bed, make_bed
from tramontane.domain.definition import EgressRule, Probe
from tramontane.domain.observation import ObservedStatus
from tramontane.domain.route import EgressBounds, EgressRoute
from tramontane.processes.network import read_own_networks
from tramontane.testing.conformance import Watching

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def gateway() -> AsyncIterator[Bed]:
    async with make_bed() as gateway:
        await gateway.start()
        yield gateway


async def attack(bed: ProcessBed, gateway: Bed, secrets: dict[str, Any], **allowed: Any) -> str:
    """Run every attack in a sandbox whose rules name all of its destinations."""
    rules = tuple(EgressRule(host=host, port=secrets["port"]) for host in WAY_OUT_HOSTS)
    socket = str(gateway.directory / "out")
    route = EgressRoute(service_id="s", project="p", service="web", socket=socket, rules=rules)
    gateway.gateway.publish_bounds(EgressBounds(own=read_own_networks(), **allowed))
    gateway.gateway.publish_egress(route)
    await gateway.applied()
    spec = bed.programs.python(
        "ins_attacker",
        all_attacks(WAY_OUT),
        json.dumps(secrets),
        probe=Probe(grace_s=60),
        egress_socket=socket,
    )
    watching = Watching(bed)
    await bed.runtime.start(spec)
    await watching.until(spec.id, ObservedStatus.EXITED)
    await watching.close()
    return "\n".join(printed_by(spec))


async def test_no_rule_leads_back_into_the_host(
    bed: ProcessBed, gateway: Bed, outside: dict[str, Any]
) -> None:
    refusals(await attack(bed, gateway, outside), list(WAY_OUT))


async def test_the_attacks_are_real(bed: ProcessBed, gateway: Bed, outside: dict[str, Any]) -> None:
    """Where the operator has opened the address, the same program gets through."""
    opened = EgressRule(host="127.0.0.1", port=outside["port"])
    printed = await attack(bed, gateway, outside, allowed=frozenset({opened}))
    results = dict(zip(WAY_OUT, printed.splitlines(), strict=True))
    assert results.pop("the host as 127.0.0.1").startswith("SUCCEEDED"), results
    assert all(line.startswith("refused: HTTP/1.1 ") for line in results.values()), results
