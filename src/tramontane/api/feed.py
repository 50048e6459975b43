"""Tells watchers which services changed: ``announce`` from any thread, ``subscribe`` in the loop.

Like a nudge it carries no data, and one that is lost costs only time: a watcher looks at
everything again with each heartbeat.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from tramontane.domain.ids import ServiceId


class Subscription:
    """One watcher's view of the feed; belongs to the event loop it was made in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._changed: set[ServiceId] = set()
        self._wakeup = asyncio.Event()

    def add(self, service_id: ServiceId) -> None:
        """Note a change; called in the loop."""
        self._changed.add(service_id)
        self._wakeup.set()

    async def wait(self, timeout_s: float) -> frozenset[ServiceId]:
        """Return what changed since the last call; empty if nothing did for ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wakeup.wait()
        except TimeoutError:
            return frozenset()
        changed = frozenset(self._changed)
        self._changed.clear()
        self._wakeup.clear()
        return changed


class ServiceFeed:
    """The one place where changes are announced."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def announce(self, service_id: ServiceId) -> None:
        """Say that a service changed, its removal included; from any thread."""
        for subscription in tuple(self._subscriptions):
            try:
                subscription.loop.call_soon_threadsafe(subscription.add, service_id)
            except RuntimeError:
                # The loop of that watcher has ended, and the watcher with it.
                self._subscriptions.discard(subscription)

    @contextmanager
    def subscribe(self) -> Generator[Subscription]:
        """Give a subscription while the block lasts; call it inside a running event loop."""
        subscription = Subscription(asyncio.get_running_loop())
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
