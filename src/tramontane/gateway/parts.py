"""The one large route configuration, kept as encoded parts, so that one bad part harms no other.

Envoy accepts or rejects a route configuration as a whole. When it rejects one, everything that
changed since the last accepted one is held back, then let in one by one; what is rejected alone
stays out until it changes. Used by ``gateway.resources``.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Parts(Generic[Key]):
    """Encoded fragments by key. Protobuf allows it: fragments joined are the whole message."""

    def __init__(self) -> None:
        self._current: dict[Key, bytes] = {}
        self._offered: dict[Key, bytes] = {}
        self._accepted: dict[Key, bytes] = {}
        self._held: dict[Key, None] = {}
        """Changed parts that wait for their turn, in order."""
        self._bad: set[Key] = set()
        """Parts that were rejected alone."""

    def get(self, key: Key) -> bytes | None:
        """Return the part as last put."""
        return self._current.get(key)

    def put(self, key: Key, part: bytes) -> None:
        """Add or replace a part; it gets a new chance."""
        self._current[key] = part
        self._bad.discard(key)
        self._held.pop(key, None)

    def remove(self, key: Key) -> None:
        """Take a part away; silence if unknown."""
        self._current.pop(key, None)
        self._bad.discard(key)
        self._held.pop(key, None)

    def join(self) -> bytes:
        """Return the whole, with the last accepted form of each part that is held back."""
        self._offered = {}
        for key in sorted(self._current, key=str):
            held = key in self._held or key in self._bad
            part = self._accepted.get(key) if held else self._current[key]
            if part is not None:
                self._offered[key] = part
        return b"".join(self._offered.values())

    def accept(self) -> bool:
        """Envoy took what was joined last. Return whether there is more to offer."""
        self._accepted = self._offered
        if not self._held:
            return False
        del self._held[next(iter(self._held))]
        return True

    def reject(self) -> Key | None:
        """Envoy refused what was joined last: offer again. Return the part at fault if known."""
        changed = [key for key, part in self._offered.items() if self._accepted.get(key) != part]
        if len(changed) == 1:
            self._bad.add(changed[0])
            return changed[0]
        self._held.update(dict.fromkeys(changed))
        return None
