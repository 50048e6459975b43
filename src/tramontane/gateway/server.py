"""The delta xDS server: one stream per Envoy over which everything travels, requests to wake too.

Envoy connects to us, tells what it has and what it wants, and is told what changed. One protocol
detail carries the product: a request for a sleeping upstream makes Envoy *subscribe* to a cluster
we do not have; the server asks its listener and answers when the cluster exists.
Used by ``gateway.gateway`` only.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc

from tramontane.gateway.calls import OpenCalls
from tramontane.gateway.catalogue import CLUSTER, ENDPOINTS, ROUTES, TYPES, Catalogue
from tramontane.gateway.descriptors import Schema

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What Envoy said to what we sent: taken (ACK), or refused with an error (NACK)."""

    type_url: str
    names: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Envoy refused a resource (a NACK) and goes on with what it had before."""

    type_url: str
    names: tuple[str, ...]
    """Resources, or the one service (``project/service``) whose part of the routes is at fault."""
    message: str


class AdsListener(Protocol):
    """Who is told what Envoys say. Called on the event loop; must not raise."""

    def on_connected(self, clusters: Collection[str]) -> None:
        """An Envoy connected that already has these clusters."""
        ...

    def on_wanted(self, name: str) -> bool:
        """Envoy asks for a cluster we do not have. Return whether one may come."""
        ...

    def on_answer(self, answer: Answer) -> None:
        """Envoy answered to a response; it goes on with what it had where it refused."""
        ...


@dataclass(frozen=True, kw_only=True)
class _Sent:
    """One response on its way; ``oldest`` is the sequence of the first change it carries."""

    type_url: str
    names: tuple[str, ...]
    oldest: int


@dataclass
class _TypeState:
    """What one Envoy has and wants of one type."""

    subscribed: set[str] = field(default_factory=set[str])
    wildcard: bool = False
    known: dict[str, str] = field(default_factory=dict[str, str])
    """Versions that Envoy has or was sent."""
    dirty: dict[str, int] = field(default_factory=dict[str, int])
    """Names to look at, with the catalogue's sequence when they changed."""
    forced: set[str] = field(default_factory=set[str])
    """Names asked for anew: answered even if we believe that Envoy has them."""
    in_flight: dict[str, _Sent] = field(default_factory=dict[str, _Sent])
    opened: bool = False
    owed: bool = False
    """An answer is due even if it is empty: Envoy waits for the first one before it serves."""


class AdsStream:
    """One connected Envoy."""

    def __init__(self, server: "AdsServer") -> None:
        self._server = server
        self._types = {type_url: _TypeState() for type_url in TYPES}
        self._changed = asyncio.Event()
        self._nonce = 0

    def mark(self, type_url: str, name: str) -> None:
        """Note that a resource changed."""
        state = self._types[type_url]
        if state.wildcard or name in state.subscribed:
            state.dirty[name] = self._server.catalogue.sequence
            self._changed.set()

    def applied(self, *type_urls: str) -> int:
        """Return the sequence up to which Envoy has accepted all changes of these types."""
        waiting = [
            sequence
            for type_url in type_urls or TYPES
            for state in [self._types[type_url]]
            for sequence in [
                *(sent.oldest for sent in state.in_flight.values()),
                *state.dirty.values(),
            ]
        ]
        return min(waiting, default=self._server.catalogue.sequence + 1) - 1

    def is_ready(self) -> bool:
        """Return whether Envoy has asked for its routes: before that it serves nothing."""
        return self._types[ROUTES].opened

    def take(self, request: Any) -> None:
        """Take in one request of Envoy: an answer to us, new subscriptions, or both."""
        state = self._types.get(request.type_url)
        if state is None:
            return
        if not state.opened:
            state.opened = True
            state.known.update(request.initial_resource_versions)
            if request.type_url == CLUSTER:
                self._server.listener.on_connected(state.known)
            # A first request without names asks for everything (old form of the wildcard).
            state.wildcard = not request.resource_names_subscribe
            self._mark_all(request.type_url, state)
            state.owed = True
        if request.response_nonce:
            self._take_answer(state, request)
        self._subscribe(request.type_url, state, set(request.resource_names_subscribe))
        for name in request.resource_names_unsubscribe:
            state.subscribed.discard(name)
            state.known.pop(name, None)
            state.dirty.pop(name, None)
            state.wildcard = state.wildcard and name != "*"
        self._changed.set()

    async def responses(self) -> AsyncIterator[Any]:
        """Yield what Envoy does not have yet, whenever there is something."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for type_url in TYPES:
                response = self._make_response(type_url)
                if response is not None:
                    yield response

    def _take_answer(self, state: _TypeState, request: Any) -> None:
        sent = state.in_flight.pop(request.response_nonce, None)
        if sent is not None:
            self._server.listener.on_answer(
                Answer(
                    type_url=sent.type_url,
                    names=sent.names,
                    error=request.error_detail.message
                    if request.HasField("error_detail")
                    else None,
                )
            )
        self._server.notify()

    def _subscribe(self, type_url: str, state: _TypeState, names: set[str]) -> None:
        if "*" in names:
            names.discard("*")
            if not state.wildcard:
                state.wildcard = True
                self._mark_all(type_url, state)
        fresh_names = names - state.subscribed
        state.subscribed |= names
        for name in fresh_names:
            state.dirty[name] = self._server.catalogue.sequence
            if name not in state.known:
                state.forced.add(name)

    def _mark_all(self, type_url: str, state: _TypeState) -> None:
        if state.wildcard:
            for name in (*self._server.catalogue.names(type_url), *state.known):
                state.dirty[name] = self._server.catalogue.sequence

    def _make_response(self, type_url: str) -> Any:
        state = self._types[type_url]
        # Routes are one large message: what gathers until the last is accepted goes as one.
        if not state.opened or (type_url == ROUTES and state.in_flight):
            return None
        response = self._server.response_class(type_url=type_url)
        before = dict(state.dirty)
        for name in before:
            self._add_change(type_url, state, response, name)
        owed, state.owed = state.owed and state.wildcard, False
        if not (response.resources or response.removed_resources or owed):
            if before != state.dirty:
                self._server.notify()
            return None
        self._nonce += 1
        response.nonce = str(self._nonce)
        oldest = min(before.values(), default=self._server.catalogue.sequence)
        touched = (*(r.name for r in response.resources), *response.removed_resources)
        state.in_flight[response.nonce] = _Sent(type_url=type_url, names=touched, oldest=oldest)
        return response

    def _add_change(self, type_url: str, state: _TypeState, response: Any, name: str) -> None:
        resource = self._server.catalogue.get(type_url, name)
        if resource is not None:
            if state.known.get(name) != resource.version or name in state.forced:
                response.resources.add(
                    name=name,
                    version=resource.version,
                    resource={"type_url": type_url, "value": resource.body},
                )
                state.known[name] = resource.version
        elif name in state.known:
            # Routes must have left a cluster before it goes, or requests would find it missing.
            if type_url == CLUSTER and not self._have_routes_left(state.dirty[name]):
                return
            if type_url != ENDPOINTS:
                response.removed_resources.append(name)
            del state.known[name]
        elif (
            type_url == CLUSTER
            and name in state.forced
            and not self._server.listener.on_wanted(name)
        ):
            # A name that no route uses any more: whoever is held for it must not wait.
            response.removed_resources.append(name)
        state.forced.discard(name)
        state.dirty.pop(name, None)

    def _have_routes_left(self, sequence: int) -> bool:
        return self._types[ROUTES].opened and self.applied(ROUTES) >= sequence


class AdsServer:
    """Serves one ``Catalogue`` to any number of Envoys."""

    def __init__(
        self,
        *,
        schema: Schema,
        catalogue: Catalogue,
        listener: AdsListener,
    ) -> None:
        self.catalogue = catalogue
        self.listener = listener
        self._request_class = schema.message_class(
            "envoy.service.discovery.v3.DeltaDiscoveryRequest"
        )
        self.response_class = schema.message_class(
            "envoy.service.discovery.v3.DeltaDiscoveryResponse"
        )
        self.complete = asyncio.Event()
        """Set once the catalogue holds the whole state; nothing is served before."""
        self._streams: list[AdsStream] = []
        self._calls = OpenCalls()
        self._changed = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handler to add to a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self._serve,
            request_deserializer=self._request_class.FromString,
            response_serializer=self.response_class.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"DeltaAggregatedResources": method})

    def close(self) -> None:
        """End every stream; Envoys connect again."""
        self._calls.end()

    def is_connected(self) -> bool:
        """Return whether an Envoy is connected and has asked for its routes."""
        return any(stream.is_ready() for stream in self._streams)

    def notify(self) -> None:
        """Wake up whoever waits in ``wait_applied``."""
        self._changed.set()

    async def wait_applied(self, timeout_s: float) -> None:
        """Return once a connected Envoy has answered to all changes made so far.

        Raises ``TimeoutError``. With several Envoys, all of them must have answered.
        """
        wanted = self.catalogue.sequence
        async with asyncio.timeout(timeout_s):
            while not self._is_applied(wanted):
                self._changed.clear()
                await self._changed.wait()

    def _is_applied(self, wanted: int) -> bool:
        return self.is_connected() and all(stream.applied() >= wanted for stream in self._streams)

    async def _serve(self, requests: AsyncIterator[Any], context: Any) -> None:
        with self._calls.serving():
            await self.complete.wait()
            await self._run_stream(requests, context)

    async def _run_stream(self, requests: AsyncIterator[Any], context: Any) -> None:
        stream = AdsStream(self)
        self.catalogue.watch(stream)
        self._streams.append(stream)
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(_write_all(stream, context))
                async for request in requests:
                    stream.take(request)
                    self.notify()
                writer.cancel()
        finally:
            self.catalogue.unwatch(stream)
            self._streams.remove(stream)
            self.notify()


async def _write_all(stream: AdsStream, context: Any) -> None:
    async for response in stream.responses():
        await context.write(response)
