"""Batches and their requests, as small as they can be: for tests of every layer."""

import json
from dataclasses import replace
from typing import Any

from tramontane.domain.batch import Batch

CHAT = "/v1/chat/completions"


def make_batch(**values: Any) -> Batch:
    """Return a batch of one file that has just been asked for."""
    base = Batch(
        id="batch_1",
        project="shop",
        key_id="tok_1",
        endpoint=CHAT,
        model=None,
        named=True,
        input_files=("file_1",),
        output_file="file_2",
        error_file="file_3",
        window_hours=24,
        results_kept_s=86400.0,
        created_at=1_800_000_000.0,
        expires_at=1_800_086_400.0,
    )
    return replace(base, **values)


def make_line(number: int, **values: Any) -> bytes:
    """Return a good request; a value of None leaves a field out."""
    request: dict[str, Any] = {
        "custom_id": f"r{number}",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "tiny", "messages": []},
        **values,
    }
    left = {name: value for name, value in request.items() if value is not None}
    return json.dumps(left).encode() + b"\n"
