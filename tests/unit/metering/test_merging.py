"""A stream put together again is the answer that the API would have given at once."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tramontane.metering.engine_wire import Api
from tramontane.metering.merging import Merged

TIMINGS = {"cache_n": 2, "prompt_n": 3, "predicted_n": 4}


def events(*chunks: Any) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def chunk(delta: Any, finish: str | None = None, index: int = 0, **more: Any) -> Any:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]} | more


@given(st.lists(st.text(min_size=1), min_size=1))
def test_text_is_whole(pieces: list[str]) -> None:
    merged = Merged(Api.CHAT)
    merged.add(events(chunk({"role": "assistant", "content": None})))
    for piece in pieces:
        merged.add(events(chunk({"content": piece})))
        assert merged.answer() is None, "it is not over yet"
    merged.add(events(chunk({}, "stop", timings=TIMINGS)))
    answer = merged.answer()
    assert answer is not None
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "".join(pieces)}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_tool_calls_are_whole() -> None:
    merged = Merged(Api.CHAT)

    def call(index: int, **function: str) -> Any:
        head = {"id": f"call{index}", "type": "function"} if "name" in function else {}
        return chunk({"tool_calls": [{"index": index, **head, "function": function}]})

    merged.add(
        events(chunk({"role": "assistant", "content": None}), call(0, name="f", arguments=""))
    )
    merged.add(events(call(0, arguments='{"a"'), call(0, arguments=":1}")))
    merged.add(events(call(1, name="g", arguments="{}"), chunk({}, "tool_calls")))
    answer = merged.answer()
    assert answer is not None
    message = answer["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "call0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "call1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_choices_and_log_probabilities_are_kept_apart() -> None:
    merged = Merged(Api.CHAT)
    for index in (1, 0):
        one = chunk({"content": str(index)}, index=index)
        one["choices"][0]["logprobs"] = {"content": [{"token": str(index)}]}
        merged.add(events(one, one, chunk({}, "stop", index=index)))
    answer = merged.answer()
    assert answer is not None
    assert [each["message"]["content"] for each in answer["choices"]] == ["00", "11"]
    assert [len(each["logprobs"]["content"]) for each in answer["choices"]] == [2, 2]


def test_completions_and_responses() -> None:
    merged = Merged(Api.COMPLETIONS)
    for text, finish in (("a", None), ("b", None), ("", "length")):
        merged.add(events({"choices": [{"index": 0, "text": text, "finish_reason": finish}]}))
    answer = merged.answer()
    assert answer is not None
    assert (answer["object"], answer["choices"][0]["text"]) == ("text_completion", "ab")
    merged = Merged(Api.RESPONSES)
    merged.add(b'event: response.created\ndata: {"type": "response.created", "response": {}}\n\n')
    assert merged.answer() is None
    merged.add(events({"type": "response.completed", "response": {"id": "r"}}))
    assert merged.answer() == {"id": "r"}


def test_an_error_in_the_stream_is_no_answer() -> None:
    merged = Merged(Api.CHAT)
    merged.add(events(chunk({"content": "a"}), {"error": {"message": "out of context"}}))
    assert merged.answer() is None
    assert merged.error == {"error": {"message": "out of context"}}
