"""``tram models fetch``, ``cache`` and ``evict``: progress as it comes, names people know."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.fake import Tram
from tramontane.base.errors import Conflict
from tramontane.cli.session import Terminal
from tramontane.cli.weights import model_reference, shorten
from tramontane.wire.calls import Call

COMMIT = "0123456789ab" + "c" * 28
DIGEST = "sha256:" + "d" * 64
MIB = 1024**2


def make_weights(**changes: object) -> dict[str, Any]:
    return {
        "references": [f"hf://o/r@{COMMIT}:q4.gguf"],
        "digest": DIGEST,
        "size_bytes": 100 * MIB,
        "done_bytes": 100 * MIB,
        "files": [],
        "used_by": ["default/chat"],
        "used_at": 1700000000.0,
        "fetched_at": 1700000000.0,
        **changes,
    }


def test_fetch_asks_until_it_is_there_and_the_source_only_once(tram: Tram) -> None:
    coming = [make_weights(digest=None, done_bytes=10 * step * MIB) for step in range(10)]
    nothing = make_weights(digest=None, size_bytes=0, done_bytes=0)
    tram.api.script("POST", "weights/fetch", [nothing, *coming, make_weights()])
    result = tram("models", "fetch", "hf://o/r:q4.gguf")
    assert result.code == 0
    assert result.out == ("hf://o/r@0123456789ab:q4.gguf is on the platform's machine: 100 MiB\n")
    asked = [json.loads(call.body or b"")["model"] for call in tram.api.calls]
    assert asked == ["hf://o/r:q4.gguf", *[f"hf://o/r@{COMMIT}:q4.gguf"] * 11]
    lines = result.err.splitlines()
    assert "fetching: 30 MiB of 100 MiB (30 %), 20 MiB/s, 4 s left" in lines
    assert 3 <= len(lines) <= 6, "one a second, not one per answer"


def test_fetch_on_a_terminal_keeps_one_line(tram: Tram) -> None:
    tram.terminal = Terminal(stderr=True)
    coming = make_weights(digest=None, done_bytes=50 * MIB)
    tram.api.script("POST", "weights/fetch", [coming, coming, make_weights()])
    result = tram("models", "fetch", "hf://o/r:q4.gguf")
    assert "\n" not in result.err
    assert "fetching: 50 MiB of 100 MiB (50 %)" in result.err


def test_cache_shows_what_is_there_who_uses_it_and_what_is_coming(tram: Tram) -> None:
    coming = make_weights(
        references=["s3://models/7b/#" + "e" * 32],
        digest=None,
        done_bytes=25 * MIB,
        used_by=[],
    )
    tram.api.on("GET", "weights", [coming, make_weights()])
    result = tram("models", "cache")
    assert [line.split("  ")[0] for line in result.out.splitlines()] == [
        "REFERENCE",
        "s3://models/7b/#eeeeeeeeeeee",
        "hf://o/r@0123456789ab:q4.gguf",
    ]
    assert "25 MiB of 100 MiB" in result.out
    assert "default/chat" in result.out
    assert "2023-11-14 22:13:20Z" in result.out
    assert "being fetched" in result.out
    tram.api.on("GET", "weights", [])
    assert tram("models", "cache").out == "no weights were fetched yet\n"


@pytest.mark.parametrize(
    "named",
    [
        f"hf://o/r@{COMMIT}:q4.gguf",
        "hf://o/r@0123456789ab:q4.gguf",
        "hf://o/r",
        DIGEST,
        DIGEST[7:20],
    ],
)
def test_evict_takes_the_name_by_which_people_know_it(tram: Tram, named: str) -> None:
    tram.api.on("GET", "weights", [make_weights()])
    tram.api.on("DELETE", f"weights/{DIGEST.replace(':', '%3A')}", make_weights())
    result = tram("models", "evict", named)
    assert (result.code, result.out) == (0, f"{named} is removed: 100 MiB\n")


def test_evict_refuses_what_is_unclear_unknown_or_in_use(tram: Tram) -> None:
    other = make_weights(references=[f"hf://o/r@{COMMIT}:q8.gguf"], digest="sha256:" + "e" * 64)
    tram.api.on("GET", "weights", [make_weights(), other])
    result = tram("models", "evict", "hf://o/r")
    assert result.code == 2
    assert "could be any of hf://o/r@0123456789ab:q4.gguf, hf://o/r@0123456789ab:q8" in result.err
    result = tram("models", "evict", "hf://o/s")
    assert result.code == 4
    assert "next: tram models cache shows what there is" in result.err

    def refuse(call: Call) -> object:
        return Conflict("the weights are used by default/chat: delete it first")

    tram.api.on("DELETE", f"weights/{DIGEST.replace(':', '%3A')}", refuse)
    result = tram("models", "evict", f"hf://o/r@{COMMIT}:q4.gguf")
    assert result.code == 1
    assert "used by default/chat" in result.err
    tram.api.on("GET", "weights", [make_weights(digest=None)])
    assert "is being fetched at present" in tram("models", "evict", "hf://o/r").err


def test_a_reference_is_shortened_where_nobody_could_read_it() -> None:
    assert shorten("oci://r.eu/m@sha256:" + "0a" * 32) == "oci://r.eu/m@sha256:0a0a0a0a0a0a"
    assert shorten("hf://o/r@v1.0:m.gguf") == "hf://o/r@v1.0:m.gguf"
    assert shorten("/models/m.gguf") == "/models/m.gguf"


def test_what_is_here_is_named_by_its_whole_path_and_the_rest_left_alone(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "hf:").mkdir()
    assert model_reference("m.gguf", tmp_path) == str(tmp_path / "m.gguf")
    for text in ("tiny", "hf://o/r", "other.gguf"):
        assert model_reference(text, tmp_path) == text
