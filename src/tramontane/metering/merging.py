"""One answer out of the pieces of a stream, as the API would have given it at once. Pure.

Called by ``metering.exchange`` for clients that asked for no stream.
"""

import json
from collections.abc import Iterator
from typing import Any

from tramontane.metering.engine_wire import Api

_DATA = b"data:"


class Merged:
    """An answer that grows with the events of a stream."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._answer: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        """What the engine said instead of going on."""

    def add(self, events: bytes) -> None:
        """Take in some whole events."""
        for event in _events(events):
            if "error" in event and "choices" not in event:
                self.error = event
            elif self._api is Api.RESPONSES:
                self._add_response_event(event)
            else:
                self._add_chunk(event)

    def answer(self) -> dict[str, Any] | None:
        """Return the whole answer, or None if the stream has not come to its end."""
        if self._api is Api.RESPONSES:
            return self._answer
        if not self._choices or any(
            choice["finish_reason"] is None for choice in self._choices.values()
        ):
            return None
        head: dict[str, Any] = self._head | {
            "object": "chat.completion" if self._api is Api.CHAT else "text_completion",
            "choices": [_finish(self._choices[index]) for index in sorted(self._choices)],
        }
        if "usage" not in head and "timings" in head:
            head["usage"] = _usage_of(head["timings"])
        return head

    def _add_response_event(self, event: dict[str, Any]) -> None:
        if event.get("type") in {"response.completed", "response.incomplete", "response.failed"}:
            self._answer = event.get("response")

    def _add_chunk(self, chunk: dict[str, Any]) -> None:
        for piece in chunk.pop("choices", []):
            choice = self._choices.setdefault(
                piece.get("index", 0), _new_choice(self._api, piece.get("index", 0))
            )
            if piece.get("finish_reason") is not None:
                choice["finish_reason"] = piece["finish_reason"]
            _add_logprobs(choice, piece.get("logprobs"))
            if self._api is Api.CHAT:
                _add_delta(choice["message"], piece.get("delta") or {})
            else:
                choice["text"] += piece.get("text") or ""
        self._head |= {key: value for key, value in chunk.items() if value is not None}


def _events(raw: bytes) -> Iterator[dict[str, Any]]:
    for line in raw.split(b"\n"):
        if line.startswith(_DATA) and not line.startswith(b"data: [DONE]"):
            event = json.loads(line[len(_DATA) :])
            if isinstance(event, dict):
                yield event


def _new_choice(api: Api, index: int) -> dict[str, Any]:
    content = (
        {"message": {"role": "assistant", "content": None}} if api is Api.CHAT else {"text": ""}
    )
    return {"index": index, **content, "logprobs": None, "finish_reason": None}


def _finish(choice: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = choice.get("message", {})
    calls = message.get("tool_calls")
    if calls is not None:
        # Only pieces have to say which call they belong to.
        message["tool_calls"] = [
            {key: value for key, value in call.items() if key != "index"} for call in calls
        ]
    elif message.get("content", "") is None:
        message["content"] = ""
    return choice


def _add_logprobs(choice: dict[str, Any], found: dict[str, Any] | None) -> None:
    if not found:
        return
    before = choice["logprobs"]
    if before is None:
        choice["logprobs"] = found
        return
    for key, values in found.items():
        if isinstance(values, list) and isinstance(before.get(key), list):
            before[key].extend(values)
        else:
            before[key] = values


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key == "tool_calls":
            _add_tool_calls(message.setdefault("tool_calls", []), value or [])
        elif key == "role":
            message["role"] = value
        elif isinstance(value, str):
            message[key] = (message.get(key) or "") + value
        elif value is not None:
            message[key] = value


def _add_tool_calls(calls: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    by_index = {call["index"]: call for call in calls}
    for piece in pieces:
        index = piece.get("index", 0)
        call = by_index.get(index)
        if call is None:
            call = {"index": index, "function": {"name": "", "arguments": ""}}
            by_index[index] = call
            calls.append(call)
        call |= {key: value for key, value in piece.items() if key not in {"function", "index"}}
        function: dict[str, str | None] = piece.get("function") or {}
        for key, value in function.items():
            call["function"][key] = (call["function"].get(key) or "") + (value or "")


def _usage_of(timings: dict[str, Any]) -> dict[str, Any]:
    cached = timings.get("cache_n", 0)
    prompt, completion = timings.get("prompt_n", 0) + cached, timings.get("predicted_n", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
