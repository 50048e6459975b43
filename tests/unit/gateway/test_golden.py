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
        got["Listener"] = [each for each in got["Listener"] if each["name"] != "services"]
    got = json.loads(json.dumps(got))
    if os.environ.get("TRAMONTANE_GOLDEN") == "write":
        path.write_text(yaml.safe_dump(got, sort_keys=True, width=100))
    assert yaml.safe_load(path.read_text()) == got


def test_there_are_pairs() -> None:
    assert len(NAMES) >= 3
