"""The Python clients: ``from tramontane import Client``.

    client = Client()                       # finds the platform as `tram` does
    client.get_service("default", "hello").url
    for line in client.stream_logs("default", "hello", follow=True): ...

``AsyncClient`` has the same operations with ``await`` (streams: ``async for``). Each operation is
described once in ``wire.calls``; the tables in both classes only name the schema of its answer.
All failures are ``base.errors``.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from pathlib import Path
from types import NoneType, TracebackType
from typing import BinaryIO, Concatenate, ParamSpec, Self, TypeVar

import httpx

from tramontane.base.errors import NotFound
from tramontane.wire import calls
from tramontane.wire.calls import Call
from tramontane.wire.exchange import Exchange, find_peer
from tramontane.wire.inference_schemas import BatchView, FileView, UsagePageView, UsageView
from tramontane.wire.schemas import (
    AliasView,
    CellView,
    CreatedToken,
    DeploymentView,
    EventView,
    ExecView,
    InstanceView,
    LogLine,
    ModelFactsView,
    ModelView,
    PlanView,
    ProjectView,
    ServiceView,
    SourceView,
    StatusView,
    TokenView,
    WeightsView,
    WhyView,
)
from tramontane.wire.streams import decoder_for

P = ParamSpec("P")
T = TypeVar("T")

CHUNK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 5.0


def _fetches(build: Callable[P, Call], result: type[T]) -> Callable[Concatenate["Client", P], T]:
    @wraps(build)
    def operation(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        exchange = Exchange(client.peer, build(*args, **kwargs))
        return exchange.parse(client.send(exchange), result)

    return operation


def _streams(
    build: Callable[P, Call], result: type[T]
) -> Callable[Concatenate["Client", P], Iterator[T]]:
    @wraps(build)
    def operation(client: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        exchange = Exchange(client.peer, build(*args, **kwargs))
        return (exchange.parse(document, result) for document in client.stream(exchange))

    return operation


def _afetches(
    build: Callable[P, Call], result: type[T]
) -> Callable[Concatenate["AsyncClient", P], Awaitable[T]]:
    @wraps(build)
    async def operation(client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        exchange = Exchange(client.peer, build(*args, **kwargs))
        return exchange.parse(await client.send(exchange), result)

    return operation


def _astreams(
    build: Callable[P, Call], result: type[T]
) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[T]]:
    @wraps(build)
    async def operation(
        client: "AsyncClient", /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        exchange = Exchange(client.peer, build(*args, **kwargs))
        async for document in client.stream(exchange):
            yield exchange.parse(document, result)

    return operation


class Client:
    """The API for synchronous programs. May be shared between threads; close it, or use ``with``.

    Without arguments it finds the platform of ``TRAM_HOME``, or the one that ``TRAM_API`` and
    ``TRAM_TOKEN`` name.
    """

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        home: Path | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.peer = find_peer(address, token, home)
        self._http = httpx.Client(
            base_url=self.peer.address, transport=transport, trust_env=self.peer.distant
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, exchange: Exchange) -> bytes:
        """Return the body of the answer; repeat the call where that is harmless."""
        while True:
            try:
                answer = self._send_once(exchange)
            except httpx.TransportError as cause:
                delay_s = exchange.after_failure(cause)
            else:
                if answer.status_code < 400:
                    return answer.content
                delay_s = exchange.after_refusal(
                    answer.status_code, answer.content, answer.headers.get("retry-after")
                )
            threading.Event().wait(delay_s)

    def stream(self, exchange: Exchange) -> Iterator[bytes]:
        """Yield the documents of a streaming answer as they arrive."""
        decoder = decoder_for(exchange.call.accept)
        try:
            answer = self._http.send(_request(self._http, exchange), stream=True)
            try:
                if answer.status_code >= 400:
                    raise exchange.refusal(answer.status_code, answer.read())
                for chunk in answer.iter_bytes():
                    yield from decoder.feed(chunk)
                yield from decoder.finish()
            finally:
                answer.close()
        except httpx.TransportError as cause:
            raise exchange.failure(cause) from cause

    def _send_once(self, exchange: Exchange) -> httpx.Response:
        if exchange.call.file is None:
            return self._http.send(_request(self._http, exchange))
        with exchange.call.file.open("rb") as file:
            return self._http.send(_request(self._http, exchange, file))

    def has_source(self, digest: str) -> bool:
        """Return whether an archive with this digest was uploaded before."""
        try:
            self.send(Exchange(self.peer, calls.check_source(digest)))
        except NotFound:
            return False
        return True

    get_status = _fetches(calls.get_status, StatusView)
    list_cells = _fetches(calls.list_cells, list[CellView])
    get_cell = _fetches(calls.get_cell, CellView)
    list_models = _fetches(calls.list_models, list[ModelView])
    inspect_model = _fetches(calls.inspect_model, ModelFactsView)
    list_weights = _fetches(calls.list_weights, list[WeightsView])
    fetch_weights = _fetches(calls.fetch_weights, WeightsView)
    delete_weights = _fetches(calls.delete_weights, WeightsView)
    list_projects = _fetches(calls.list_projects, list[ProjectView])
    get_project = _fetches(calls.get_project, ProjectView)
    put_project = _fetches(calls.put_project, ProjectView)
    delete_project = _fetches(calls.delete_project, NoneType)
    list_files = _fetches(calls.list_files, list[FileView])
    list_batches = _fetches(calls.list_batches, list[BatchView])
    get_batch = _fetches(calls.get_batch, BatchView)
    cancel_batch = _fetches(calls.cancel_batch, BatchView)
    list_tokens = _fetches(calls.list_tokens, list[TokenView])
    create_token = _fetches(calls.create_token, CreatedToken)
    limit_token = _fetches(calls.limit_token, TokenView)
    delete_token = _fetches(calls.delete_token, NoneType)
    get_usage = _fetches(calls.get_usage, UsageView)
    list_usage_requests = _fetches(calls.list_usage_requests, UsagePageView)
    list_services = _fetches(calls.list_services, list[ServiceView])
    get_service = _fetches(calls.get_service, ServiceView)
    put_service = _fetches(calls.put_service, DeploymentView)
    delete_service = _fetches(calls.delete_service, ServiceView)
    scale_service = _fetches(calls.scale_service, ServiceView)
    pause_service = _fetches(calls.pause_service, ServiceView)
    resume_service = _fetches(calls.resume_service, ServiceView)
    rollback_service = _fetches(calls.rollback_service, DeploymentView)
    exec_command = _fetches(calls.exec_command, ExecView)
    explain_service = _fetches(calls.explain_service, WhyView)
    list_deployments = _fetches(calls.list_deployments, list[DeploymentView])
    get_deployment = _fetches(calls.get_deployment, DeploymentView)
    list_instances = _fetches(calls.list_instances, list[InstanceView])
    list_events = _fetches(calls.list_events, list[EventView])
    list_aliases = _fetches(calls.list_aliases, list[AliasView])
    get_alias = _fetches(calls.get_alias, AliasView)
    put_alias = _fetches(calls.put_alias, AliasView)
    delete_alias = _fetches(calls.delete_alias, NoneType)
    plan_services = _fetches(calls.plan_services, PlanView)
    upload_source = _fetches(calls.upload_source, SourceView)
    stream_logs = _streams(calls.stream_logs, LogLine)
    watch_services = _streams(calls.watch_services, ServiceView)


class AsyncClient:
    """The API for programs with asyncio; the same operations as ``Client``."""

    def __init__(
        self,
        address: str | None = None,
        token: str | None = None,
        *,
        home: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.peer = find_peer(address, token, home)
        self._http = httpx.AsyncClient(
            base_url=self.peer.address, transport=transport, trust_env=self.peer.distant
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def send(self, exchange: Exchange) -> bytes:
        """Return the body of the answer; repeat the call where that is harmless."""
        while True:
            try:
                answer = await self._send_once(exchange)
            except httpx.TransportError as cause:
                delay_s = exchange.after_failure(cause)
            else:
                if answer.status_code < 400:
                    return answer.content
                delay_s = exchange.after_refusal(
                    answer.status_code, answer.content, answer.headers.get("retry-after")
                )
            await asyncio.sleep(delay_s)

    async def stream(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """Yield the documents of a streaming answer as they arrive."""
        decoder = decoder_for(exchange.call.accept)
        try:
            answer = await self._http.send(_request(self._http, exchange), stream=True)
            try:
                if answer.status_code >= 400:
                    raise exchange.refusal(answer.status_code, await answer.aread())
                async for chunk in answer.aiter_bytes():
                    for document in decoder.feed(chunk):
                        yield document
                for document in decoder.finish():
                    yield document
            finally:
                await answer.aclose()
        except httpx.TransportError as cause:
            raise exchange.failure(cause) from cause

    async def _send_once(self, exchange: Exchange) -> httpx.Response:
        if exchange.call.file is None:
            return await self._http.send(_request(self._http, exchange))
        with await asyncio.to_thread(exchange.call.file.open, "rb") as file:
            return await self._http.send(_request(self._http, exchange, _chunks(file)))

    async def has_source(self, digest: str) -> bool:
        """Return whether an archive with this digest was uploaded before."""
        try:
            await self.send(Exchange(self.peer, calls.check_source(digest)))
        except NotFound:
            return False
        return True

    get_status = _afetches(calls.get_status, StatusView)
    list_cells = _afetches(calls.list_cells, list[CellView])
    get_cell = _afetches(calls.get_cell, CellView)
    list_models = _afetches(calls.list_models, list[ModelView])
    inspect_model = _afetches(calls.inspect_model, ModelFactsView)
    list_weights = _afetches(calls.list_weights, list[WeightsView])
    fetch_weights = _afetches(calls.fetch_weights, WeightsView)
    delete_weights = _afetches(calls.delete_weights, WeightsView)
    list_projects = _afetches(calls.list_projects, list[ProjectView])
    get_project = _afetches(calls.get_project, ProjectView)
    put_project = _afetches(calls.put_project, ProjectView)
    delete_project = _afetches(calls.delete_project, NoneType)
    list_files = _afetches(calls.list_files, list[FileView])
    list_batches = _afetches(calls.list_batches, list[BatchView])
    get_batch = _afetches(calls.get_batch, BatchView)
    cancel_batch = _afetches(calls.cancel_batch, BatchView)
    list_tokens = _afetches(calls.list_tokens, list[TokenView])
    create_token = _afetches(calls.create_token, CreatedToken)
    limit_token = _afetches(calls.limit_token, TokenView)
    delete_token = _afetches(calls.delete_token, NoneType)
    get_usage = _afetches(calls.get_usage, UsageView)
    list_usage_requests = _afetches(calls.list_usage_requests, UsagePageView)
    list_services = _afetches(calls.list_services, list[ServiceView])
    get_service = _afetches(calls.get_service, ServiceView)
    put_service = _afetches(calls.put_service, DeploymentView)
    delete_service = _afetches(calls.delete_service, ServiceView)
    scale_service = _afetches(calls.scale_service, ServiceView)
    pause_service = _afetches(calls.pause_service, ServiceView)
    resume_service = _afetches(calls.resume_service, ServiceView)
    rollback_service = _afetches(calls.rollback_service, DeploymentView)
    exec_command = _afetches(calls.exec_command, ExecView)
    explain_service = _afetches(calls.explain_service, WhyView)
    list_deployments = _afetches(calls.list_deployments, list[DeploymentView])
    get_deployment = _afetches(calls.get_deployment, DeploymentView)
    list_instances = _afetches(calls.list_instances, list[InstanceView])
    list_events = _afetches(calls.list_events, list[EventView])
    list_aliases = _afetches(calls.list_aliases, list[AliasView])
    get_alias = _afetches(calls.get_alias, AliasView)
    put_alias = _afetches(calls.put_alias, AliasView)
    delete_alias = _afetches(calls.delete_alias, NoneType)
    plan_services = _afetches(calls.plan_services, PlanView)
    upload_source = _afetches(calls.upload_source, SourceView)
    stream_logs = _astreams(calls.stream_logs, LogLine)
    watch_services = _astreams(calls.watch_services, ServiceView)


def _request(
    http: httpx.Client | httpx.AsyncClient,
    exchange: Exchange,
    file: BinaryIO | AsyncIterator[bytes] | None = None,
) -> httpx.Request:
    call = exchange.call
    return http.build_request(
        call.method,
        call.target,
        headers=exchange.headers,
        content=call.body if file is None else file,
        timeout=httpx.Timeout(call.timeout_s, connect=CONNECT_TIMEOUT_S),
    )


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk
