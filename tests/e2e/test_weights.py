"""A model from a hub: fetched once, checked, shared, pinned, and awake without the hub."""

import shutil
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.platform import Platform, wait_for
from tests.integration.weights.hub import Hub, run_hub

pytestmark = pytest.mark.e2e

TINY = files("tramontane.engines").joinpath("models/tiny.gguf").read_bytes()
TOKEN = "hf_of_the_operator"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with run_hub() as running:
        repository = running.repository("local/tiny")
        repository.token = TOKEN
        repository.commit({"tiny.gguf": TINY, "README.md": b"---\nlicense: apache-2.0\n---\n"})
        yield running


@pytest.fixture(scope="module")
def platform(hub: Hub) -> Iterator[Platform]:
    home = Path(tempfile.mkdtemp(prefix="tram-e2e-"))
    platform = Platform(home=home / "home")
    platform.home.mkdir(mode=0o700)
    sources = platform.home / "sources.yaml"
    sources.touch(mode=0o600)
    sources.write_text(f"hf: {{endpoint: '{hub.endpoint}', token: {TOKEN}}}\n")
    platform.up()
    try:
        yield platform
    finally:
        platform.tram("down", check=None)
        wait_for(lambda: not list(platform.processes()), "the last processes to end", 5)
        shutil.rmtree(home, ignore_errors=True)


def chat(platform: Platform, name: str) -> str:
    return platform.tram("chat", name, "What is the capital of Italy?").stdout


def test_a_model_comes_from_the_hub_with_progress(platform: Platform, hub: Hub) -> None:
    hub.faults.bytes_per_s = 2_000_000
    done = platform.tram("deploy", "--model", "hf://local/tiny", "--name", "one")
    hub.faults.bytes_per_s = 0
    assert "2 files, 3.3 MiB to fetch" in done.stderr
    assert "build: fetching: " in done.stderr
    assert "3.3 MiB are here and checked, sha256:" in done.stderr
    assert "Rome" in chat(platform, "one")
    (model,) = platform.read("models", "list")
    assert model["reference"].startswith("hf://local/tiny@")
    assert model["facts"]["revision"] == model["reference"].rpartition("@")[2]


def test_an_instance_gets_what_the_fetched_headers_say(platform: Platform) -> None:
    sizing = platform.service("one")["sizing"]
    parts = {each["name"]: each["size_bytes"] for each in sizing["parts"]}
    assert parts["weights"] == len(TINY)
    assert sizing["context_tokens"] == 1024
    assert sizing["memory_bytes"] >= sizing["needed_bytes"] == sum(parts.values())


def test_what_does_not_fit_is_told_with_the_sum_and_starts_nothing(
    platform: Platform, tmp_path: Path
) -> None:
    manifest = tmp_path / "tramontane.yaml"
    manifest.write_text("{model: hf://local/tiny, name: tight, resources: {memory: 64MiB}}\n")
    planned = platform.tram("plan", "-f", manifest)
    assert "tight: create; no cell may and can run it" in planned.stdout
    refused = platform.tram("apply", "-f", manifest, check=1)
    assert "no cell can ever run tight" in refused.stderr
    assert "engine 33 MiB" in refused.stderr
    assert "resources.memory allows 64 MiB" in refused.stderr
    found = platform.service("tight")
    assert (found["status"], found["reason"], found["instances"]) == ("pending", "too_large", [])
    platform.tram("services", "delete", "tight")


def test_a_second_service_shares_the_copy(platform: Platform, hub: Hub) -> None:
    sent = hub.bytes_sent
    platform.tram("deploy", "--model", "hf://local/tiny", "--name", "two")
    assert hub.bytes_sent == sent
    (weights,) = platform.read("models", "cache")
    assert weights["used_by"] == ["default/one", "default/two"]
    refused = platform.tram("models", "evict", "hf://local/tiny", check=1)
    assert "used by default/one, default/two" in refused.stderr


def test_a_reference_that_moved_is_a_new_deployment_and_one_that_did_not_is_none(
    platform: Platform, hub: Hub
) -> None:
    again = platform.tram("deploy", "--model", "hf://local/tiny", "--name", "two")
    assert "deployment 1 serves already: nothing changed" in again.stderr
    hub.repository("local/tiny").commit({"tiny.gguf": TINY, "README.md": b"another"})
    moved = platform.tram("deploy", "--model", "hf://local/tiny", "--name", "two")
    assert "deployment 2 is accepted" in moved.stderr
    assert "2 files, 7 B to fetch" in moved.stderr, "the same weights are not fetched again"
    first, second = sorted(platform.read("models", "list"), key=lambda each: each["name"])
    assert first["reference"] != second["reference"]
    assert first["facts"]["digest"] == second["facts"]["digest"]


def test_weights_that_made_room_come_back_with_a_rollback(platform: Platform, hub: Hub) -> None:
    platform.tram("deploy", "--model", "tiny", "--name", "one")

    def evicted() -> bool:
        # The instance before may still be ending.
        first = platform.read("models", "cache")[-1]["references"][0]
        return platform.tram("models", "evict", first, check=None).returncode == 0

    wait_for(evicted, "the weights to be free")
    sent = hub.bytes_sent
    platform.tram("rollback", "one")
    platform.wait_status("one", "healthy")
    wait_for(lambda: hub.bytes_sent > sent, "the weights to be fetched again")
    assert "Rome" in chat(platform, "one")


def test_what_the_hub_refuses_is_told_before_anything_is_kept(platform: Platform, hub: Hub) -> None:
    hub.repository("local/two").commit({"q4.gguf": TINY, "q8.gguf": TINY})
    refused = platform.tram("deploy", "--model", "hf://local/two", "--name", "three", check=2)
    assert "name the file of one: q4.gguf (3.3 MiB), q8.gguf (3.3 MiB)" in refused.stderr
    missing = platform.tram("deploy", "--model", "hf://local/x", "--name", "three", check=2)
    assert "has no such repository" in missing.stderr
    platform.tram("services", "get", "three", check=4)


def test_without_the_hub_what_is_here_wakes_and_no_secret_was_told(
    platform: Platform, hub: Hub
) -> None:
    hub.repositories.clear()
    platform.tram("scale", "one", "0")
    platform.wait_status("one", "sleeping")
    assert "Rome" in chat(platform, "one")
    assert TOKEN not in platform.control_log()
    for log in (platform.home / "logs").rglob("*"):
        assert log.is_dir() or TOKEN not in log.read_text(errors="replace")
    delivered = [each for each in hub.asked if each.server == "delivery"]
    assert delivered
    assert not any("authorization" in each.headers for each in delivered)


def test_a_control_plane_that_is_killed_goes_on_with_the_fetch(
    platform: Platform, hub: Hub
) -> None:
    weights = TINY + bytes(20_000_000)
    hub.repository("local/big").commit({"big.gguf": weights})
    hub.faults.bytes_per_s = 1_500_000
    sent = hub.bytes_sent
    platform.tram("deploy", "--model", "hf://local/big", "--name", "big", "--no-wait")
    wait_for(lambda: hub.bytes_sent - sent > 8_000_000, "some of it to be here")
    platform.kill_control()
    hub.faults.bytes_per_s = 0
    platform.up()
    platform.wait_status("big", "healthy")
    assert "Rome" in chat(platform, "big")
    (found,) = [each for each in platform.read("models", "cache") if "big" in str(each)]
    assert found["size_bytes"] == len(weights)


def test_a_file_that_was_replaced_does_not_wake_as_what_was_deployed(
    platform: Platform, tmp_path: Path
) -> None:
    file = tmp_path / "mine.gguf"
    file.write_bytes(TINY)
    platform.tram("deploy", "--model", file, "--name", "mine")
    platform.tram("scale", "mine", "0")
    platform.wait_status("mine", "sleeping")
    # One that still drains would take requests again: nothing would be started.
    wait_for(lambda: not platform.service("mine")["instances"], "its instance to be gone")
    file.write_bytes(TINY)
    refused = platform.tram("scale", "mine", "1", check=None)
    assert refused.returncode == 0
    found = wait_for(lambda: _with_message(platform, "has changed since"), "a word about it")
    assert found["status"] != "healthy"
    platform.tram("deploy", "--model", file, "--name", "mine")
    assert "Rome" in chat(platform, "mine")


def _with_message(platform: Platform, text: str) -> Any:
    found = platform.service("mine")
    return found if text in found["message"] else None
