"""Models from a hub: what is fetched, what is checked, and where secrets may go."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.weights.conftest import Fetching, make_weights
from tests.integration.weights.hub import Hub
from tramontane.base.errors import InvalidRequest, SourceFailed, TramontaneError
from tramontane.domain.reference import HubReference
from tramontane.weights.download import Stopped
from tramontane.weights.settings import HubSettings, SourceSettings

WEIGHTS = make_weights(1_000_000)


def leftovers(fetching: Fetching) -> list[Path]:
    return list(fetching.cache.partial.iterdir())


def test_a_moving_reference_is_pinned_to_the_commit_of_now(hub: Hub, fetching: Fetching) -> None:
    repository = hub.repository("local/tiny")
    first = repository.commit({"m.gguf": WEIGHTS})
    pinned = fetching.pin("local/tiny")
    assert pinned == HubReference(repository="local/tiny", revision=first)
    second = repository.commit({"m.gguf": make_weights(1000)})
    assert fetching.pin("local/tiny").revision == second
    asked = len(hub.asked)
    assert fetching.sources.pin(pinned) == pinned
    assert len(hub.asked) == asked
    assert fetching.fetch(pinned) == {"m.gguf": WEIGHTS}


def test_files_come_in_parts_and_small_ones_by_gits_checksum(hub: Hub, fetching: Fetching) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": b"{}", "tokenizer.json": b"[1]" * 999}
    hub.repository("local/st").commit({**files, "modeling.py": b"import os"})
    pinned = fetching.pin("local/st")
    assert fetching.fetch(pinned) == files
    ranges = [each.headers["range"] for each in hub.asked if each.server == "delivery"]
    assert sorted(ranges)[:2] == ["bytes=0-99999", "bytes=100000-199999"]
    assert len(ranges) == 10
    sent = hub.bytes_sent
    assert fetching.fetch(pinned) == files
    assert hub.bytes_sent == sent, "what is here is not fetched again"
    assert not leftovers(fetching)


def test_the_token_reaches_the_hub_and_nobody_else(hub: Hub, fetching: Fetching) -> None:
    repository = hub.repository("local/secret")
    repository.token = "hf_secret"
    repository.commit({"m.gguf": WEIGHTS, "README.md": b"hello"})
    with pytest.raises(InvalidRequest, match="shows it to few; a token is given by"):
        fetching.pin("local/secret")
    fetching.settings = SourceSettings(hub=HubSettings(endpoint=hub.endpoint, token="hf_secret"))
    assert fetching.fetch(fetching.pin("local/secret"))["m.gguf"] == WEIGHTS
    delivered = [each for each in hub.asked if each.server == "delivery"]
    assert delivered
    assert not any("authorization" in each.headers for each in delivered)
    assert "hf_secret" not in repr(fetching.settings)


def test_what_the_hub_refuses_is_said_in_words(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/gated").commit({"m.gguf": WEIGHTS})
    hub.repository("local/gated").gated = True
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    with pytest.raises(SourceFailed, match="is gated: accept its conditions"):
        fetching.pin("local/gated")
    with pytest.raises(InvalidRequest, match="has no such repository"):
        fetching.pin("local/missing")
    with pytest.raises(InvalidRequest, match="has no revision v9"):
        fetching.sources.pin(HubReference(repository="local/tiny", revision="v9"))
    with pytest.raises(InvalidRequest, match=r"there is no file x.gguf; there are m.gguf"):
        fetching.sources.pin(HubReference(repository="local/tiny", file="x.gguf"))
    hub.faults.api = False
    with pytest.raises(SourceFailed, match="not as a model hub does; check the endpoint"):
        fetching.pin("local/tiny")


def test_a_hub_that_nobody_answers_for_is_unavailable_and_offline_asks_nobody(
    hub: Hub, fetching: Fetching
) -> None:
    nobody = HubSettings(endpoint="http://127.0.0.1:9")
    fetching.settings = SourceSettings(hub=nobody)
    with pytest.raises(SourceFailed, match=r"hf://local/tiny: 127.0.0.1 cannot be reached"):
        fetching.pin("local/tiny")
    fetching.settings = SourceSettings(hub=replace(nobody, endpoint=hub.endpoint, offline=True))
    with pytest.raises(SourceFailed, match="switched off"):
        fetching.pin("local/tiny")
    assert not hub.asked


def test_a_mirror_that_lists_names_only_is_asked_for_the_rest(hub: Hub, fetching: Fetching) -> None:
    files = {"m.gguf": WEIGHTS, "README.md": b"hello"}
    hub.repository("local/tiny").commit(files)
    hub.faults.names_only = True
    assert fetching.fetch(fetching.pin("local/tiny")) == files
    heads = [each for each in hub.asked if each.method == "HEAD"]
    assert {each.server for each in heads} == {"hub"}


def test_a_hub_that_lists_trees_alone_will_do(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS, "README.md": b"hello"})
    hub.faults.trees_only = True
    assert fetching.fetch(fetching.pin("local/tiny")) == {"m.gguf": WEIGHTS, "README.md": b"hello"}


@pytest.mark.parametrize("cut_after", [1, 30_000, 99_999])
def test_broken_connections_are_taken_up_where_they_broke(
    hub: Hub, fetching: Fetching, cut_after: int
) -> None:
    weights = WEIGHTS[:300_000] if cut_after > 1 else WEIGHTS[:10]
    hub.repository("local/tiny").commit({"m.gguf": weights})
    hub.faults.cut_after = cut_after
    assert fetching.fetch(fetching.pin("local/tiny")) == {"m.gguf": weights}
    assert hub.bytes_sent == len(weights), "no byte is fetched twice"


def test_a_busy_source_is_asked_again_and_a_dead_one_given_up(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    pinned = fetching.pin("local/tiny")
    # An expired permission of the delivery network is renewed by asking the hub once more.
    hub.faults.statuses = [503, 429, 403]
    assert fetching.fetch(pinned) == {"m.gguf": WEIGHTS}
    hub.repository("local/other").commit({"m.gguf": make_weights(1000)})
    hub.faults.statuses = [500] * 1000
    with pytest.raises(SourceFailed, match="answers with status 500"):
        fetching.fetch(fetching.pin("local/other"))


def test_a_source_without_ranges_gives_its_files_whole(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    hub.faults.ranges = False
    assert fetching.fetch(fetching.pin("local/tiny")) == {"m.gguf": WEIGHTS}


def test_a_source_that_never_gets_to_the_end_is_given_up(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    hub.faults.ranges, hub.faults.cut_after = False, 50_000
    with pytest.raises(TramontaneError):
        fetching.fetch(fetching.pin("local/tiny"))


def test_what_is_not_what_was_promised_is_never_seen(hub: Hub, fetching: Fetching) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    hub.faults.spoil = "m.gguf"
    pinned = fetching.pin("local/tiny")
    with pytest.raises(SourceFailed, match="has not the checksum sha256:"):
        fetching.fetch(pinned)
    assert not list(fetching.cache.blobs.iterdir())
    assert not leftovers(fetching)
    hub.faults.spoil = ""
    assert fetching.fetch(pinned) == {"m.gguf": WEIGHTS}


def test_parts_that_were_spoiled_on_the_disk_are_fetched_again(
    hub: Hub, fetching: Fetching
) -> None:
    hub.repository("local/tiny").commit({"m.gguf": WEIGHTS})
    pinned = fetching.pin("local/tiny")
    download = fetching.download(pinned)

    def stop_halfway(done_bytes: int) -> None:
        if done_bytes > 700_000:
            download.stop.set()

    download.on_bytes = stop_halfway
    with pytest.raises(Stopped):
        download.run()
    (folder,) = leftovers(fetching)
    noted = (folder / "parts").read_text().splitlines()[1:]
    assert noted, "some parts were whole"
    with (folder / "data").open("r+b") as file:
        file.seek(int(noted[0].split()[0]) * 100_000)
        file.write(b"spoiled")
    assert fetching.fetch(pinned) == {"m.gguf": WEIGHTS}


def test_the_real_client_finds_a_hub_here(hub: Hub, tmp_path: Path) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": b"{}"}
    commit = hub.repository("local/st").commit(files)
    program = (
        "import sys, huggingface_hub as h\n"
        "api = h.HfApi(endpoint=sys.argv[1])\n"
        "info = api.model_info('local/st', files_metadata=True)\n"
        "assert info.sha == sys.argv[2], info\n"
        "assert {s.rfilename for s in info.siblings} == {'model.safetensors', 'config.json'}\n"
        "assert all(s.size for s in info.siblings), info\n"
        "print(h.snapshot_download('local/st', endpoint=sys.argv[1], cache_dir=sys.argv[3]))\n"
    )
    environment = {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", program, hub.endpoint, commit, str(tmp_path / "cache")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    snapshot = Path(done.stdout.strip())
    assert {each.name: each.read_bytes() for each in snapshot.iterdir()} == files
