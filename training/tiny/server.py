"""The real llama.cpp server on a free port of this process, and a client of ten lines.

`export.py` and `evaluate.py` use it. It is configured as the product configures it: several slots,
continuous batching, embeddings with mean pooling beside completions, no web page.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import xllamacpp

SLOTS = 4
CONTEXT_LENGTH = 1024


class TinyServer:
    """A context manager around one server.

    One thread by default: a second computes nothing faster in so small a model, and on a busy
    machine the two wait for each other at every layer.
    """

    def __init__(self, model: Path, embeddings: bool = False, threads: int = 1) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_parallel = SLOTS
        params.n_ctx = SLOTS * CONTEXT_LENGTH
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.ui = False
        params.verbosity = 0
        params.embedding = embeddings
        if embeddings:
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        self._params = params

    def __enter__(self) -> Self:
        """Start; the constructor of `Server` returns when the model is loaded."""
        self._server = xllamacpp.Server(self._params)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the native server go."""
        del self._server

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON and return the JSON answer; an HTTP error carries the server's words."""
        request = urllib.request.Request(
            f"{self._server.listening_address}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read().decode()}") from error
