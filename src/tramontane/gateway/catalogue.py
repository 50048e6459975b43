"""What we tell Envoy, by type and name, with a version each: the state that ``server`` serves.

A version is a hash of the content, so a restarted control plane that arrives at the same state
sends nothing again and, above all, takes nothing away.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
ENDPOINTS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"
EXTENSION = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

TYPES = (CLUSTER, ENDPOINTS, LISTENER, EXTENSION, ROUTES)
"""In the order in which they are sent: what is referred to before what refers to it."""

Source = bytes | Callable[[], bytes]
"""A resource's wire form, or how to make it when somebody is about to read it."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One resource as it goes over the wire."""

    name: str
    version: str
    body: bytes


class Watcher(Protocol):
    """Somebody who wants to know which resources changed: one connected Envoy."""

    def mark(self, type_url: str, name: str) -> None:
        """Take note; must be quick and must not fail."""
        ...


@dataclass
class _Entry:
    source: Source
    resource: Resource | None = None


@dataclass
class Catalogue:
    """All resources. ``sequence`` counts changes, so that one can wait until they are applied."""

    sequence: int = 0
    _entries: dict[str, dict[str, _Entry]] = field(
        default_factory=lambda: {type_url: {} for type_url in TYPES}
    )
    _watchers: list[Watcher] = field(default_factory=list[Watcher])

    def put(self, type_url: str, name: str, source: Source) -> None:
        """Add or replace a resource; unchanged bytes are no change."""
        entry = self._entries[type_url].get(name)
        if entry is not None and not callable(source) and entry.source == source:
            return
        self._entries[type_url][name] = _Entry(source)
        self._mark(type_url, name)

    def remove(self, type_url: str, name: str) -> None:
        """Take a resource away; silence if unknown."""
        if self._entries[type_url].pop(name, None) is not None:
            self._mark(type_url, name)

    def get(self, type_url: str, name: str) -> Resource | None:
        """Return a resource, made now if its source is a function."""
        entry = self._entries[type_url].get(name)
        if entry is None:
            return None
        if entry.resource is None:
            body = entry.source() if callable(entry.source) else entry.source
            version = blake2b(body, digest_size=12).hexdigest()
            entry.resource = Resource(name=name, version=version, body=body)
        return entry.resource

    def names(self, type_url: str) -> list[str]:
        """Return the names of all resources of a type."""
        return list(self._entries[type_url])

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of every change from now on."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Watcher) -> None:
        """Stop telling it."""
        self._watchers.remove(watcher)

    def _mark(self, type_url: str, name: str) -> None:
        self.sequence += 1
        for watcher in self._watchers:
            watcher.mark(type_url, name)
