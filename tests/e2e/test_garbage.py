"""What nothing needs any more leaves the disk, and what runs or may be wanted back does not."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, wait_for

pytestmark = pytest.mark.e2e

KEPT = 3


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    home = Path(tempfile.mkdtemp(prefix="tram-e2e-"))
    limits = ("--keep-deployments", str(KEPT), "--keep-unneeded", "1s", "--cache-limit", "1GB")
    platform = Platform(home=home / "home", flags=("--country", "DE", *limits))
    platform.up()
    try:
        yield platform
    finally:
        platform.tram("down", check=None)
        shutil.rmtree(home, ignore_errors=True)


def write_site(directory: Path, version: int) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "index.html").write_text(f"version {version}")
    return directory


def artifacts(platform: Platform) -> set[str]:
    return {each.name for each in (platform.home / "builds" / "artifacts").iterdir()}


def archives(platform: Platform) -> set[str]:
    return {each.name for each in (platform.home / "sources").glob("*.tar.gz")}


def numbers(platform: Platform, name: str) -> list[int]:
    return [each["number"] for each in platform.read("deployments", "list", name)]


def test_twelve_versions_leave_the_kept_ones_and_a_way_back(
    platform: Platform, tmp_path: Path
) -> None:
    other = write_site(tmp_path / "other", 0)
    platform.tram("deploy", other, "--name", "untouched", "--min", "1")
    before = platform.service("untouched")
    for version in range(1, 13):
        platform.tram("deploy", write_site(tmp_path / "site", version), "--name", "site")
    wait_for(lambda: numbers(platform, "site") == [12, 11, 10], "old deployments to go")
    wait_for(lambda: len(artifacts(platform)) == KEPT + 1, "old artifacts to go")
    wait_for(lambda: len(archives(platform)) == KEPT + 1, "old archives to go")

    assert platform.request("site").body == b"version 12"
    platform.tram("rollback", "site")
    wait_for(lambda: platform.request("site").body == b"version 11", "the version before")
    platform.tram("rollback", "site", "10")
    wait_for(lambda: platform.request("site").body == b"version 10", "an older version")
    gone = platform.tram("rollback", "site", "3", check=4)
    assert "the newest are: 12, 11, 10" in gone.stderr
    # An old version is uploaded and built anew, as if it had never been here.
    platform.tram("deploy", write_site(tmp_path / "site", 3), "--name", "site")
    assert platform.request("site").body == b"version 3"

    after = platform.service("untouched")
    assert [each["pid"] for each in after["instances"]] == [
        each["pid"] for each in before["instances"]
    ]
    assert platform.request("untouched").body == b"version 0"
    assert "collected" in platform.control_log()


def test_a_deleted_service_and_what_a_killed_platform_left_go(
    platform: Platform, tmp_path: Path
) -> None:
    shared = write_site(tmp_path / "shared", 100)
    own = write_site(tmp_path / "own", 101)
    platform.tram("deploy", shared, "--name", "stays")
    platform.tram("deploy", shared, "--name", "goes")
    platform.tram("deploy", own, "--name", "goes")
    service = platform.service("goes")["id"]
    before = (artifacts(platform), archives(platform))
    platform.tram("delete", "goes")
    wait_for(
        lambda: (
            (len(artifacts(platform)), len(archives(platform)))
            == (len(before[0]) - 1, len(before[1]) - 1)
        ),
        "what only the deleted service used to go",
    )
    wait_for(lambda: not (platform.home / "logs" / service).exists(), "its logs to go")
    assert platform.request("stays").body == b"version 100"

    platform.kill_control()
    half_built = platform.home / "builds" / "staging" / "build-0.abcdefgh" / "app"
    half_built.mkdir(parents=True)
    (half_built / "index.html").write_text("half")
    partial = platform.home / "sources" / ".upl_1.partial"
    partial.write_bytes(b"half")
    unknown = platform.home / "sources" / f"{'0' * 64}.tar.gz"
    unknown.write_bytes(b"its row was never written")
    os.utime(unknown, (1, 1))
    platform.up()
    for left in (half_built.parent, partial, unknown):
        wait_for(lambda left=left: not left.exists(), f"{left.name} to go")
    assert platform.request("stays").body == b"version 100"


def test_status_says_what_the_platform_takes_up(platform: Platform) -> None:
    disk = wait_for(lambda: platform.read("status")["disk"], "somebody to have looked")
    assert disk["artifacts_bytes"] > 0
    assert disk["toolchains_bytes"] > 0
    assert "disk: artifacts " in platform.tram("status").stdout
