"""``tram aliases`` and talking to one: what is sent, and what is shown."""

import json

import pytest

from tests.unit.cli.fake import Tram

ALIAS = {
    "name": "assistant",
    "project": "default",
    "targets": [{"service": "small", "percent": 90}, {"service": "large", "percent": 10}],
    "canaries": [{"header": "x-canary", "value": "yes", "service": "large"}],
    "fallbacks": ["tiny"],
    "first_token_s": 20.0,
    "between_tokens_s": None,
    "missing": ["tiny"],
    "generation": 3,
    "created_at": 1700000000.0,
}
PATH = "projects/default/aliases/assistant"


def test_set_sends_all_that_was_said(tram: Tram) -> None:
    tram.api.on("PUT", PATH, ALIAS)
    result = tram(
        *("aliases", "set", "assistant", "--to", "small=90", "--to", "large=10%"),
        *("--canary-header", "x-canary=yes:large", "--fallback", "tiny", "--first-token", "20s"),
    )
    assert result.code == 0, result.err
    assert tram.api.sent("PUT", PATH) == {
        "targets": ALIAS["targets"],
        "canaries": ALIAS["canaries"],
        "fallbacks": ["tiny"],
        "first_token_s": 20.0,
        "between_tokens_s": None,
    }
    assert "small=90, large=10" in result.out
    assert "tiny was deleted" in result.out


def test_one_target_has_all(tram: Tram) -> None:
    tram.api.on("PUT", PATH, ALIAS)
    assert tram("aliases", "set", "assistant", "--to", "small").code == 0
    assert tram.api.sent("PUT", PATH)["targets"] == [{"service": "small", "percent": 100}]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--to"),
        (("--to", "small=many"), "such as small=90"),
        (("--to", "small", "--canary-header", "x-canary"), "such as x-canary=yes:large"),
    ],
)
def test_what_cannot_be_read(tram: Tram, arguments: tuple[str, ...], words: str) -> None:
    result = tram("aliases", "set", "assistant", *arguments)
    assert result.code == 2
    assert words in result.err
    assert not tram.api.calls


def test_list_and_delete(tram: Tram) -> None:
    assert "make one with: tram aliases set" in tram("aliases", "list").out
    tram.api.on("GET", "aliases", [ALIAS])
    assert "x-canary=yes:large" in tram("aliases", "list").out
    assert json.loads(tram("aliases", "list", "-o", "json").out) == [ALIAS]
    tram.api.on("DELETE", PATH, None)
    assert tram("aliases", "delete", "assistant").out == "alias assistant is deleted\n"
