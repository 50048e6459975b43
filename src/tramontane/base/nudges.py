"""Nudges: "look at this again soon", with no data but the key.

The HTTP API, the gateway and the runtimes nudge; reconcilers wait. A nudge that is lost costs
time, never correctness, because every reconciler also looks by itself from time to time.
"""

import asyncio
import heapq
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class NudgeQueue(Generic[Key]):
    """Keys to look at: each at most once in the queue and in one worker's hands at a time.

    ``nudge`` may be called from any thread; the rest belongs to the event loop that made it.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._monotonic = monotonic
        self._ready: dict[Key, None] = {}
        self._unhurried: dict[Key, None] = {}
        self._unhurried_held: set[Key] = set()
        self._held: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._sequence = 0
        self._wakeup = asyncio.Event()

    def nudge(self, key: Key) -> None:
        """Ask for a look at ``key`` as soon as a worker is free; thread-safe."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._add(key)
        else:
            self._loop.call_soon_threadsafe(self._add, key)

    def nudge_when_idle(self, key: Key) -> None:
        """Ask for a look at ``key`` when nothing else waits; such looks go one after the other.

        For looking at everything from time to time: a request that waits must not queue behind it.
        """
        if key not in self._ready:
            self._unhurried[key] = None
            self._wakeup.set()

    def nudge_in(self, key: Key, delay_s: float) -> None:
        """Ask for a look at ``key`` after ``delay_s``; an earlier wish for the same key wins."""
        due = self._monotonic() + max(delay_s, 0.0)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._timers, (due, self._sequence, key))
        self._wakeup.set()

    async def take(self) -> Key:
        """Wait for the next key; the caller owns it until ``done``."""
        while True:
            wait_s = self._fire_timers()
            if self._ready:
                key = next(iter(self._ready))
                del self._ready[key]
                self._held.add(key)
                return key
            if self._unhurried and not self._unhurried_held:
                key = next(iter(self._unhurried))
                del self._unhurried[key]
                if key not in self._held:
                    self._unhurried_held.add(key)
                    self._held.add(key)
                    return key
                continue
            self._wakeup.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Give ``key`` back; if it was nudged meanwhile, it is ready again."""
        self._held.discard(key)
        self._unhurried_held.discard(key)
        if self._unhurried:
            self._wakeup.set()
        if key in self._again:
            self._again.discard(key)
            self._add(key)

    def _add(self, key: Key) -> None:
        if key in self._held:
            self._again.add(key)
        else:
            self._unhurried.pop(key, None)
            self._ready[key] = None
            self._wakeup.set()

    def _fire_timers(self) -> float | None:
        now = self._monotonic()
        while self._timers:
            due, _, key = self._timers[0]
            if due > now:
                return due - now
            heapq.heappop(self._timers)
            if self._due.get(key) == due:
                del self._due[key]
                self._add(key)
        return None
