"""A worker as its user sees it: deployed, killed, replaced, put to rest and removed."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, alive, wait_for

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples/hello-worker"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The example, with a grace that does not make the test wait."""
    directory = shutil.copytree(EXAMPLE, tmp_path / "mails")
    (directory / "tramontane.yaml").write_text("probe: {grace: 1s}\n")
    return directory


def running(platform: Platform, name: str, *, after: int = 0) -> int:
    """Return the process of the service's only instance once that is ready, and not ``after``."""

    def find() -> int | None:
        found = platform.service(name)["instances"]
        is_ready = [each["status"] for each in found] == ["healthy"]
        return found[0]["pid"] if is_ready and found[0]["pid"] != after else None

    return wait_for(find, f"one healthy instance of {name}")


def test_the_life_of_a_worker(platform: Platform, source: Path) -> None:
    done = platform.tram("deploy", source)
    assert "mails is a worker, without an address" in done.stderr
    assert "started by `worker` of the Procfile" in done.stderr
    assert done.stdout == "mails is healthy\n"
    service = platform.service("mails")
    assert (service["kind"], service["url"], service["status"]) == ("worker", None, "healthy")
    listed = [line.split() for line in platform.tram("services", "list").stdout.splitlines()]
    assert ["mails", "default", "worker", "healthy", "1/1-1", "-", "-"] in listed
    assert platform.request("mails").status == 404
    wait_for(
        lambda: "Piece of work 2 is done" in platform.tram("logs", "mails").stdout,
        "its second line",
    )

    first = running(platform, "mails")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not alive(first), "the killed process to be gone")
    second = running(platform, "mails", after=first)
    shown = platform.tram("exec", "mails", "--", "sh", "-c", "echo [$TRAM_SERVICE] [$PORT]").stdout
    assert shown == "[mails] []\n"

    program = source / "worker.py"
    program.write_text(program.read_text().replace("Hello", "Bonjour"))
    platform.tram("deploy", source)
    third = running(platform, "mails", after=second)
    for line in ("Bonjour, world!", "nothing is left half done"):
        wait_for(lambda line=line: line in platform.tram("logs", "mails").stdout, line)

    platform.tram("rollback", "mails")
    wait_for(lambda: platform.service("mails")["serving_deployment"] == 1, "the old version")
    fourth = running(platform, "mails", after=third)
    platform.tram("delete", "mails")
    wait_for(
        lambda: platform.tram("services", "get", "mails", check=None).returncode == 4,
        "the name to be free",
    )
    assert not alive(fourth)


def test_a_version_that_ends_within_its_grace_leaves_the_old_one_working(
    platform: Platform, source: Path
) -> None:
    platform.tram("deploy", source, "--name", "steady")
    before = running(platform, "steady")
    (source / "worker.py").write_text("raise SystemExit('cannot find the broker')\n")
    output = platform.tram("deploy", source, "--name", "steady", check=1).stderr
    assert "cannot find the broker" in output
    assert "before it was ready" in output
    service = platform.service("steady")
    assert service["status"] == "degraded"
    assert [each["pid"] for each in service["instances"]] == [before]


def test_only_its_user_stops_and_starts_it(platform: Platform, source: Path) -> None:
    platform.tram("deploy", source, "--name", "resting", "--max", "2")
    platform.tram("scale", "resting", "2")
    wait_for(
        lambda: [i["status"] for i in platform.service("resting")["instances"]] == ["healthy"] * 2,
        "two healthy instances",
    )
    said = platform.tram("scale", "resting", "0").stdout
    assert "tram scale resting auto" in said
    wait_for(lambda: not platform.service("resting")["instances"], "both to be gone")
    resting = platform.service("resting")
    assert (resting["status"], resting["reason"]) == ("sleeping", "scaled_to_zero")
    platform.kill_control()
    platform.up()
    assert platform.service("resting")["status"] == "sleeping", "a restart does not wake it"
    platform.tram("scale", "resting", "auto")
    pid = running(platform, "resting")
    platform.tram("pause", "resting")
    platform.wait_status("resting", "paused")
    wait_for(lambda: not alive(pid), "the paused process to be gone")
    platform.tram("resume", "resting")
    running(platform, "resting")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("kind: job", "kind: job is not offered yet"),
        ("kind: function", "kind: function is not offered yet"),
        ("scale: {min: 0}", "scale.min: expected at least 1 for a worker"),
        ("probe: /up", "probe.path: means nothing for a worker"),
    ],
)
def test_what_a_worker_cannot_be_is_refused_with_the_field(
    platform: Platform, source: Path, manifest: str, said: str
) -> None:
    (source / "tramontane.yaml").write_text(manifest)
    assert said in platform.tram("deploy", source, "--name", "refused", check=2).stderr
    assert platform.tram("services", "get", "refused", check=None).returncode == 4
