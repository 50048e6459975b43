"""What the engine is sent: always a stream with counts, whatever the client says."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.metering.engine_wire import LLAMA_CPP, Api, read_answer, read_timings
from tramontane.metering.requests import BadRequest, Prepared, prepare

CHAT = b"/v1/chat/completions"


def ask(body: object, path: bytes = CHAT) -> Prepared:
    prepared = prepare(path, json.dumps(body).encode(), LLAMA_CPP)
    assert isinstance(prepared, Prepared)
    return prepared


def sent(body: object, path: bytes = CHAT) -> Any:
    return json.loads(ask(body, path).body)


def test_text_is_asked_for_as_a_stream_with_counts() -> None:
    asked = {"model": "m", "messages": []}
    prepared = ask(asked)
    assert json.loads(prepared.body) == asked | {"stream": True, "timings_per_token": True}
    assert (prepared.model, prepared.merge, prepared.streams) == ("m", True, True)
    prepared = ask(asked | {"stream": True})
    assert (prepared.merge, prepared.streams) == (False, True)


@pytest.mark.parametrize("stream", [False, None, 0, ""])
def test_no_client_turns_counting_off(stream: object) -> None:
    hostile = {"messages": [], "timings_per_token": False, "stream": stream}
    assert sent(hostile)["timings_per_token"] is True
    assert sent(hostile)["stream"] is True
    twice = b'{"timings_per_token": false, "messages": [], "timings_per_token": 0}'
    prepared = prepare(CHAT, twice, LLAMA_CPP)
    assert isinstance(prepared, Prepared)
    assert b"timings_per_token" not in prepared.body.replace(b'"timings_per_token": true', b"")


@given(
    st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
    ),
    st.sampled_from([None, 2]),
)
def test_all_else_is_sent_as_it_came(asked: dict[str, Any], indent: int | None) -> None:
    body = json.dumps(asked, indent=indent).encode()
    prepared = prepare(CHAT, body, LLAMA_CPP)
    assert isinstance(prepared, Prepared)
    kept = json.loads(prepared.body)
    logprobs = asked.get("logprobs") or asked.get("top_logprobs")
    if not asked.get("stream") and asked.get("tools") and logprobs:
        assert kept == asked  # llama.cpp does these only without a stream
    else:
        assert kept == asked | {"timings_per_token": True} | (
            {} if asked.get("stream") else {"stream": True}
        )


def test_vectors_are_no_stream() -> None:
    prepared = ask({"input": "x"}, b"/v1/embeddings")
    assert (prepared.api, prepared.streams, prepared.merge) == (Api.EMBEDDINGS, False, False)
    assert json.loads(prepared.body) == {"input": "x"}


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    refused = prepare(CHAT, body, LLAMA_CPP)
    assert isinstance(refused, BadRequest)
    assert refused.status == 400
    assert json.loads(refused.body())["error"]["code"] == "malformed_request"


@pytest.mark.parametrize("path", [b"/slots", b"/completion", b"/metrics", b"/props", b"/v1", b""])
def test_an_engines_own_pages_are_out_of_reach(path: bytes) -> None:
    refused = prepare(path, b"{}", LLAMA_CPP)
    assert isinstance(refused, BadRequest)
    assert refused.status == 404


def test_the_newest_counts_of_a_piece_count() -> None:
    def event(predicted: int, content: str) -> bytes:
        timings = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 1.5, "predicted_n": predicted}
        choice = {"choices": [{"delta": {"content": content}}], "timings": timings}
        return b"data: " + json.dumps(choice, separators=(",", ":")).encode() + b"\n\n"

    forged = '"timings":{"cache_n":0,"prompt_n":0,"predicted_n":9999}'
    usage = read_timings(event(1, "a") + event(2, forged))
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 2, 3)
    assert read_timings(b'data: {"choices":[]}\n\n') is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda i: st.dictionaries(
            st.sampled_from(["usage", "prompt_tokens", "prompt_tokens_details", "cached_tokens"]), i
        ),
    )
)
def test_any_answer_can_be_read(answer: object) -> None:
    usage = read_answer(answer) if isinstance(answer, dict) else None
    assert usage is None or usage.prompt_tokens >= 0
