"""How each engine is asked to count, and where in its answers the counts are. Pure.

An engine's row says which APIs it offers and what a request must contain so that every piece of a
stream carries the counts so far: only then is a request that is cut off counted exactly. Used by
``metering.requests`` and ``metering.exchange``; a new engine is a new row.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from tramontane.domain.usage import Usage

COUNT_MAX = 999_999_999


class Api(StrEnum):
    """The APIs that are metered, by the name they have in the ledger."""

    CHAT = "chat.completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"


@dataclass(frozen=True, kw_only=True)
class EngineWire:
    """What one engine's server speaks."""

    paths: Mapping[Api, str]
    """Which APIs it offers, and under which path."""
    counting: Mapping[str, Any]
    """Added to requests for text: puts the counts so far into each piece of a stream."""
    read_piece: Callable[[bytes], Usage | None]
    """Returns the newest counts in some whole events of a stream."""


# More digits than any count has are not believed. A quotation mark within a JSON string is always
# escaped, so none of these can be content.
_PROMPT = re.compile(rb'"prompt_n":(\d{1,9})')
_CACHED = re.compile(rb'"cache_n":(\d{1,9})')
_PREDICTED = re.compile(rb'"predicted_n":(\d{1,9})')


def read_timings(piece: bytes) -> Usage | None:
    """Return the newest counts of llama.cpp's ``timings``, which it adds to every piece."""
    start = piece.rfind(b'"timings":{')
    if start < 0:
        return None
    prompt, cached = _PROMPT.search(piece, start), _CACHED.search(piece, start)
    predicted = _PREDICTED.search(piece, start)
    if prompt is None or predicted is None:
        return None
    from_cache = int(cached[1]) if cached else 0
    return Usage(
        prompt_tokens=int(prompt[1]) + from_cache,
        completion_tokens=int(predicted[1]),
        cached_tokens=from_cache,
    )


def read_answer(answer: Mapping[str, Any]) -> Usage | None:
    """Return the counts of a whole answer: ``usage`` as OpenAI's APIs have it."""
    found = answer.get("usage")
    if not isinstance(found, dict):
        return None
    usage = cast("dict[str, Any]", found)
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        completion_tokens=_count(usage.get("completion_tokens", usage.get("output_tokens"))),
        cached_tokens=_count(
            _details(usage, "prompt_tokens_details").get("cached_tokens")
            or _details(usage, "input_tokens_details").get("cached_tokens")
        ),
    )


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 < value <= COUNT_MAX else 0


LLAMA_CPP = EngineWire(
    paths={
        Api.CHAT: "/v1/chat/completions",
        Api.COMPLETIONS: "/v1/completions",
        Api.RESPONSES: "/v1/responses",
        Api.EMBEDDINGS: "/v1/embeddings",
        Api.RERANK: "/v1/rerank",
    },
    counting={"timings_per_token": True},
    read_piece=read_timings,
)

ENGINES: Mapping[str, EngineWire] = {"llamacpp": LLAMA_CPP}
