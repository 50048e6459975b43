"""The calls of Envoy that are open, so that we can end them before gRPC cuts them off.

``gateway.server`` and ``gateway.load`` serve one call per Envoy each, which lasts as long as both
sides live. A gRPC server that stops cancels them, and logs every one as a failure of ours.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any


class OpenCalls:
    """The calls of one kind that are being served."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def serving(self) -> Generator[None]:
        """Serve one call in this block, until it ends, ``end`` is called, or gRPC cancels it."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            # Let through, gRPC would log it.
            with suppress(asyncio.CancelledError):
                yield
        finally:
            self._tasks.discard(task)

    def end(self) -> None:
        """End every call."""
        for task in self._tasks:
            task.cancel()
