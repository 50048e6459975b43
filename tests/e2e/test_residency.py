"""A policy that the machine does not satisfy keeps a service from running anywhere."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import write_app
from tests.e2e.platform import Platform

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def abroad() -> Iterator[Platform]:
    home = Path(tempfile.mkdtemp(prefix="tram-e2e-"))
    platform = Platform(home=home, flags=("--country", "US", "--operator", "Test operator"))
    platform.up()
    try:
        yield platform
    finally:
        platform.tram("down", check=None)
        shutil.rmtree(home, ignore_errors=True)


def test_eu_runs_here_and_says_why(platform: Platform, app_source: Path) -> None:
    platform.tram("deploy", app_source, "--name", "homely", "--policy", "eu")
    why = platform.read("why", "homely")
    assert why["candidates"][0]["allowed"] is True
    assert {each["rule"] for each in why["candidates"][0]["findings"]} >= {"eu.location"}
    assert "DE" in platform.tram("why", "homely").stdout


def test_eu_abroad_stays_pending_with_the_rule_and_exit_3(abroad: Platform, tmp_path: Path) -> None:
    source = write_app(tmp_path / "app", "v1")
    done = abroad.tram("deploy", source, "--name", "foreign", "--policy", "eu", "--wait", check=3)
    assert "eu.location" in done.stdout + done.stderr
    service = abroad.service("foreign")
    assert service["status"] == "pending"
    assert service["reason"] == "policy"
    assert service["instances"] == []
    assert abroad.request("foreign").status == 503
    assert abroad.read("why", "foreign")["candidates"][0]["allowed"] is False


def test_an_unknown_preset_is_refused_and_changes_nothing(
    platform: Platform, app_source: Path
) -> None:
    done = platform.tram(
        "deploy", app_source, "--name", "typo", "--policy", "country-dee", check=None
    )
    assert done.returncode in {1, 2}
    assert "country-de" in done.stderr
    platform.tram("services", "get", "typo", check=4)
