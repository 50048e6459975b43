"""Our routes in, Envoy's resources out: see tests/golden/gateway/README.md."""

import json
import os

import pytest
import yaml

from tests.unit.gateway.golden import DIRECTORY, NAMES, translate


@pytest.mark.parametrize("name", NAMES)
def test_translation(name: str) -> None:
    path = DIRECTORY / f"{name}.out.yaml"
    got = {kind.rpartition(".")[2]: found for kind, found in translate(name).items() if found}
    if name != "models":  # The same everywhere: shown once.
        same = {"services", "chains"}
        got["Listener"] = [each for each in got["Listener"] if each["name"] not in same]
        got["Cluster"] = [each for each in got["Cluster"] if each["name"] not in same]
    if name == "aliases":  # The hosts of its models are as in the others.
        (routes,) = got["RouteConfiguration"]
        routes["virtual_hosts"] = [
            each for each in routes["virtual_hosts"] if not each["name"].startswith("lab/")
        ]
    got = json.loads(json.dumps(got))
    if os.environ.get("TRAMONTANE_GOLDEN") == "write":
        path.write_text(yaml.safe_dump(got, sort_keys=True, width=100))
    assert yaml.safe_load(path.read_text()) == got


def test_there_are_pairs() -> None:
    assert len(NAMES) >= 3
