"""Every example that answers is deployed as it stands, one per language, and does."""

import shutil
from pathlib import Path

import pytest

from tests.e2e.platform import Platform

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
SILENT = {"hello-worker"}
"""Takes no requests: ``test_workers`` deploys it."""
NEEDS = {"hello-rust": ("cargo",), "hello-java": ("java", "mvn"), "hello-procfile": ("perl",)}


@pytest.mark.parametrize("example", sorted({each.name for each in EXAMPLES.iterdir()} - SILENT))
def test_an_example_is_deployed_and_answers(platform: Platform, example: str) -> None:
    missing = [tool for tool in NEEDS.get(example, ()) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{example} needs {', '.join(missing)}, which this machine lacks")
    done = platform.tram("deploy", EXAMPLES / example, "--timeout", "10m", timeout_s=600)
    assert done.stdout.strip() == f"http://{example}.default.localhost:{platform.gateway_port}"
    answer = platform.request(example)
    assert answer.status == 200
    assert b"ello" in answer.body
    platform.tram("scale", example, "0")
    platform.wait_status(example, "sleeping")
    assert b"ello" in platform.request(example).body, "and again, woken"
    platform.tram("delete", example)
