"""The real Envoy loads what the golden files say."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway.bed import free_port
from tests.unit.gateway.golden import NAMES, translate
from tramontane.gateway import catalogue as types
from tramontane.gateway.bootstrap import EnvoyPaths, make_bootstrap
from tramontane.gateway.envoy import find_binary

pytestmark = pytest.mark.timeout(60)


def inline(value: Any, routes: dict[str, Any], filters: dict[str, Any]) -> Any:
    """Return a listener with what it would discover written into it: validation asks nobody."""
    if isinstance(value, list):
        return [inline(each, routes, filters) for each in value]
    if not isinstance(value, dict):
        return value
    if "config_discovery" in value:
        return {"name": value["name"], "typed_config": filters[value["name"]]}
    fields = {key: inline(each, routes, filters) for key, each in value.items()}
    if "rds" in fields:
        fields["route_config"] = routes[fields.pop("rds")["route_config_name"]]
    if fields.get("name") == "envoy.filters.http.on_demand":
        del fields["typed_config"]["odcds"]
    return fields


@pytest.mark.parametrize("name", NAMES)
async def test_envoy_accepts_the_golden_output(name: str, tmp_path: Path) -> None:
    found = translate(name)
    routes = {route["name"]: route for route in found[types.ROUTES]}
    filters = {each["name"]: each["typed_config"] for each in found[types.EXTENSION]}
    endpoints = {each["cluster_name"]: each for each in found[types.ENDPOINTS]}
    clusters = []
    for cluster in found[types.CLUSTER]:
        if cluster.get("type") == "EDS":
            del cluster["eds_cluster_config"]
            cluster |= {"type": "STATIC", "load_assignment": endpoints[cluster["name"]]}
        clusters.append(cluster)
    paths = EnvoyPaths(directory=tmp_path, sockets=tmp_path)
    config = make_bootstrap(paths, node_id="golden", memory_max_bytes=2**30)
    del config["dynamic_resources"]
    listeners = [inline(each, routes, filters) for each in found[types.LISTENER]]
    listeners[-1]["address"] = {
        "socket_address": {"address": "127.0.0.1", "port_value": free_port()}
    }
    config["static_resources"]["clusters"] += clusters
    config["static_resources"]["listeners"] = listeners
    # Validation opens the logs: the golden paths may belong to somebody else on this machine.
    text = json.dumps(strip_on_demand(config))
    for log in ("access.log", "egress.log"):
        text = text.replace(f'"/tmp/{log}"', f'"{tmp_path / log}"')
    paths.bootstrap.write_text(text)
    process = await asyncio.create_subprocess_exec(
        find_binary(), "--mode", "validate", "--config-path", paths.bootstrap,
        "--disable-hot-restart", "--log-level", "error",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


def strip_on_demand(value: Any) -> Any:
    """Drop what needs the ADS stream that a validation has not got."""
    if isinstance(value, list):
        return [strip_on_demand(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: strip_on_demand(each)
        for key, each in value.items()
        if key != "envoy.filters.http.on_demand"
    }
