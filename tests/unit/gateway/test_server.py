"""The delta protocol, played by hand: no sockets, no Envoy."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from tramontane.gateway.catalogue import CLUSTER, ENDPOINTS, ROUTES, Catalogue
from tramontane.gateway.descriptors import Schema
from tramontane.gateway.server import AdsServer, AdsStream, Answer

SCHEMA = Schema()


class Listener:
    def __init__(self) -> None:
        self.wanted: list[str] = []
        self.may_come = True
        self.answers: list[Answer] = []

    def on_connected(self, clusters: Collection[str]) -> None:
        self.connected = list(clusters)

    def on_wanted(self, name: str) -> bool:
        self.wanted.append(name)
        return self.may_come

    def on_answer(self, answer: Answer) -> None:
        self.answers.append(answer)


class Peer:
    """Plays Envoy on one stream."""

    def __init__(self, catalogue: Catalogue, listener: Listener) -> None:
        self.server = AdsServer(schema=SCHEMA, catalogue=catalogue, listener=listener)
        self.stream = AdsStream(self.server)
        catalogue.watch(self.stream)
        self.responses = self.stream.responses()
        self._pending: asyncio.Future[Any] | None = None

    def ask(self, type_url: str, *names: str, **fields: Any) -> None:
        kind = SCHEMA.message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
        self.stream.take(kind(type_url=type_url, resource_names_subscribe=names, **fields))

    async def next(self) -> Any:
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self.responses))
        for _ in range(5):
            await asyncio.sleep(0)
            if self._pending.done():
                done, self._pending = self._pending, None
                return done.result()
        return None

    async def take(self) -> Any:
        """Get the next response and accept it."""
        response = await self.next()
        if response is not None:
            self.ask(response.type_url, response_nonce=response.nonce)
        return response


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue()


@pytest.fixture
def listener() -> Listener:
    return Listener()


def names(response: Any) -> list[str]:
    return [resource.name for resource in response.resources]


async def test_first_answer_comes_even_when_empty(catalogue: Catalogue, listener: Listener):
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*")
    response = await peer.next()
    assert (response.type_url, names(response)) == (CLUSTER, [])


async def test_only_changes_are_sent(catalogue: Catalogue, listener: Listener):
    catalogue.put(CLUSTER, "a", b"1")
    catalogue.put(CLUSTER, "b", b"1")
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*")
    assert names(await peer.take()) == ["a", "b"]
    catalogue.put(CLUSTER, "a", b"1")
    catalogue.put(CLUSTER, "b", b"2")
    assert names(await peer.take()) == ["b"]
    assert await peer.next() is None


async def test_reconnecting_with_the_same_state_gets_nothing(
    catalogue: Catalogue, listener: Listener
):
    catalogue.put(CLUSTER, "a", b"1")
    version = catalogue.get(CLUSTER, "a")
    assert version
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*", initial_resource_versions={"a": version.version})
    response = await peer.next()
    assert (names(response), list(response.removed_resources)) == ([], [])
    assert listener.connected == ["a"]


async def test_a_cluster_is_removed_only_after_routes_have_left_it(
    catalogue: Catalogue, listener: Listener
):
    catalogue.put(CLUSTER, "web@1", b"1")
    catalogue.put(ROUTES, "services", b"to web@1")
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*")
    peer.ask(ROUTES, "services")
    await peer.take()
    await peer.take()
    catalogue.put(ROUTES, "services", b"to web@2")
    catalogue.remove(CLUSTER, "web@1")
    response = await peer.next()
    assert names(response) == ["services"]
    assert await peer.next() is None
    assert peer.stream.applied() < catalogue.sequence
    peer.ask(ROUTES, response_nonce=response.nonce)
    assert list((await peer.take()).removed_resources) == ["web@1"]
    assert peer.stream.applied() == catalogue.sequence


async def test_after_a_reconnect_clusters_are_removed_only_once_routes_are_asked_for(
    catalogue: Catalogue, listener: Listener
):
    catalogue.put(ROUTES, "services", b"to web@2")
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*", initial_resource_versions={"web@1": "x"})
    assert list((await peer.take()).removed_resources) == []
    peer.ask(ROUTES, "services", initial_resource_versions={"services": "x"})
    assert names(await peer.take()) == ["services"]
    assert list((await peer.take()).removed_resources) == ["web@1"]


async def test_what_is_asked_for_and_sleeps_is_answered_when_it_exists(
    catalogue: Catalogue, listener: Listener
):
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*")
    await peer.take()
    peer.ask(CLUSTER, "web@1")
    assert await peer.next() is None
    assert listener.wanted == ["web@1"]
    catalogue.put(CLUSTER, "web@1", b"1")
    assert names(await peer.take()) == ["web@1"]


async def test_what_is_asked_for_and_unknown_is_answered_at_once(
    catalogue: Catalogue, listener: Listener
):
    listener.may_come = False
    peer = Peer(catalogue, listener)
    peer.ask(CLUSTER, "*")
    await peer.take()
    peer.ask(CLUSTER, "stale@1")
    assert list((await peer.take()).removed_resources) == ["stale@1"]


async def test_a_refusal_is_told_and_not_repeated(catalogue: Catalogue, listener: Listener):
    catalogue.put(ROUTES, "services", b"bad")
    peer = Peer(catalogue, listener)
    peer.ask(ROUTES, "services")
    response = await peer.next()
    status = SCHEMA.message_class("google.rpc.Status")
    peer.ask(ROUTES, response_nonce=response.nonce, error_detail=status(message="no"))
    assert [answer.error for answer in listener.answers] == ["no"]
    assert await peer.next() is None


async def test_routes_gather_while_one_version_is_on_its_way(
    catalogue: Catalogue, listener: Listener
):
    made: list[int] = []

    def make() -> bytes:
        made.append(len(made))
        return b"%d" % len(made)

    catalogue.put(ROUTES, "services", make)
    peer = Peer(catalogue, listener)
    peer.ask(ROUTES, "services")
    response = await peer.next()
    for _ in range(100):
        catalogue.put(ROUTES, "services", make)
    assert await peer.next() is None
    peer.ask(ROUTES, response_nonce=response.nonce)
    assert await peer.take() is not None
    assert len(made) == 2


async def test_endpoints_are_never_taken_away(catalogue: Catalogue, listener: Listener):
    catalogue.put(ENDPOINTS, "web@1", b"1")
    peer = Peer(catalogue, listener)
    peer.ask(ENDPOINTS, "web@1")
    await peer.take()
    catalogue.remove(ENDPOINTS, "web@1")
    assert await peer.next() is None
