"""A client's request as the engine gets it. Pure; called by ``metering.exchange``.

Requests for text are always made streams, whatever the client asked for: then the engine's counts
arrive with every token, and a client that goes away early costs what the engine had told by then.
``metering.merging`` makes one answer of such a stream again.
"""

import json
from dataclasses import dataclass
from typing import Any, cast

from tramontane.metering.engine_wire import Api, EngineWire

APIS = {
    b"/v1/chat/completions": Api.CHAT,
    b"/v1/completions": Api.COMPLETIONS,
    b"/v1/responses": Api.RESPONSES,
    b"/v1/embeddings": Api.EMBEDDINGS,
    b"/v1/rerank": Api.RERANK,
}
"""Paths under which clients find them, at the gateway and at a model's own host."""

TEXT = frozenset({Api.CHAT, Api.COMPLETIONS, Api.RESPONSES})


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What to send to the engine, and what to do with its answer."""

    api: Api
    model: str
    path: str
    body: bytes
    streams: bool = False
    """The engine is asked for a stream: it may be cut off and is counted all the same."""
    merge: bool = False
    """The client wants one answer of it."""


@dataclass(frozen=True, kw_only=True)
class BadRequest:
    """An answer in place of the engine's, in the shape of OpenAI's errors."""

    status: int
    code: str
    message: str

    def body(self) -> bytes:
        """Return the answer's JSON."""
        return error_body(self.status, self.code, self.message)


def error_body(status: int, code: str, message: str) -> bytes:
    """Return an error as OpenAI's clients understand it."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 429:
        kind = "rate_limit_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}).encode()


def prepare(path: bytes, body: bytes, engine: EngineWire) -> Prepared | BadRequest:
    """Return what the engine gets for a POST to ``path``."""
    api = APIS.get(path)
    if api is None:
        return BadRequest(status=404, code="not_found", message="there is no such path here")
    if api not in engine.paths:
        message = f"this model's engine does not offer {api}"
        return BadRequest(status=404, code="unsupported_api", message=message)
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        message = "the request's body must be a JSON object"
        return BadRequest(status=400, code="malformed_request", message=message)
    asked = cast("dict[str, Any]", parsed)
    model = asked.get("model")
    prepared = Prepared(
        api=api,
        model=model if isinstance(model, str) else "",
        path=engine.paths[api],
        body=body,
    )
    return prepared if api not in TEXT else _as_stream(prepared, asked, engine)


def _as_stream(prepared: Prepared, asked: dict[str, Any], engine: EngineWire) -> Prepared:
    merge = not asked.get("stream")
    if merge and asked.get("tools") and (asked.get("logprobs") or asked.get("top_logprobs")):
        # llama.cpp offers these two together only where nothing is streamed.
        return prepared
    added = {**engine.counting, **({"stream": True} if merge else {})}
    return Prepared(
        api=prepared.api,
        model=prepared.model,
        path=prepared.path,
        body=_add(prepared.body, asked, added),
        streams=True,
        merge=merge,
    )


def _add(body: bytes, asked: dict[str, Any], added: dict[str, Any]) -> bytes:
    """Return the body with some members more, without writing all of it anew if that can be."""
    if asked and not added.keys() & asked.keys():
        head, _, rest = body.partition(b"{")
        return head + json.dumps(added).encode()[:-1] + b"," + rest
    return json.dumps({**asked, **added}).encode()
