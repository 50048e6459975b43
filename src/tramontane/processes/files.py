"""Files and batches, wired: what answers for them at the gateway, and what works on them.

``control`` makes one and runs it beside its other parts.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import httpx

from tramontane.api.inference.app import make_inference_app
from tramontane.api.inference.parts import InferenceParts
from tramontane.api.tokens import TokenIssuer
from tramontane.base.clock import Clock
from tramontane.base.errors import NotFound
from tramontane.base.ids import random_id
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.ids import ServiceId
from tramontane.domain.instance import InstanceStatus
from tramontane.plan.batches import ModelLoad
from tramontane.processes.arguments import Address
from tramontane.processes.layout import Layout
from tramontane.processes.listening import listen_privately
from tramontane.processes.serving import ApiServer
from tramontane.reconcile.batches import LOOK_S, Answer, BatchReconciler
from tramontane.reconcile.demand import DemandTracker
from tramontane.reconcile.files import FileReconciler
from tramontane.store.contents import FileContents
from tramontane.store.store import Store

REQUEST_S = 600.0
"""For one request of a batch, the wake of its model included."""
LENT_S = 900.0
"""A key that was lent is looked at when a request arrives: this is for a slow clock, no more."""


class Files:
    """Everything of one control plane that is about files and batches."""

    def __init__(
        self,
        layout: Layout,
        store: Store,
        clock: Clock,
        *,
        issuer: TokenIssuer,
        demand: DemandTracker,
        gateway: Address,
    ) -> None:
        self._socket = layout.files_socket
        self._contents = FileContents(layout.files)
        queue: NudgeQueue[str] = NudgeQueue(clock.monotonic)
        self._carrier = GatewayCarrier(gateway)
        self._collector = FileReconciler(store=store, contents=self._contents, clock=clock)
        self.batches = BatchReconciler(
            store=store,
            contents=self._contents,
            carrier=self._carrier,
            lend=make_lender(store, issuer),
            look=Spectator(store, demand, clock).look,
            queue=queue,
            clock=clock,
        )
        parts = InferenceParts(
            store=store, contents=self._contents, clock=clock, ids=random_id, nudge=queue.nudge
        )
        self._server = ApiServer(make_inference_app(parts))

    async def serve(self) -> None:
        """Answer the gateway until ``stop`` is called."""
        # Nobody uploads yet, so what is partial is of an earlier process.
        await asyncio.to_thread(self._contents.remove_partial)
        await self._server.serve(sockets=[listen_privately(self._socket)])

    def stop(self) -> None:
        """Let ``serve`` end."""
        self._server.should_exit = True

    async def run(self) -> None:
        """Work on batches and collect what is not needed any more, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._collector.run())
                group.create_task(self.batches.run())
        finally:
            await self._carrier.close()


class GatewayCarrier:
    """Sends the requests of batches through the gateway, as any client on this machine would."""

    def __init__(self, gateway: Address) -> None:
        self._client = httpx.AsyncClient(
            base_url=f"http://{find_loopback(gateway)}",
            timeout=httpx.Timeout(REQUEST_S, connect=5.0, pool=None),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def send(self, path: str, body: bytes, key: str) -> Answer | None:
        """Return what the gateway answers, or None if nothing whole came back."""
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await self._client.post(path, content=body, headers=headers)
        except (httpx.HTTPError, TimeoutError):
            return None
        wait = answer.headers.get("retry-after", "")
        return Answer(
            status=answer.status_code,
            body=answer.content,
            retry_after_s=float(wait) if wait.isascii() and wait.isdigit() else None,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def find_loopback(gateway: Address) -> Address:
    """Return where a gateway that may listen on every address is reached from this machine."""
    try:
        if not ip_address(gateway.host).is_unspecified:
            return gateway
    except ValueError:
        return gateway
    return Address(host="::1" if ":" in gateway.host else "127.0.0.1", port=gateway.port)


def make_lender(store: Store, issuer: TokenIssuer) -> Callable[[str], str | None]:
    """Return what lends a key by its id, until that is revoked."""

    def lend(key_id: str) -> str | None:
        token = store.read_token(key_id)
        return None if token is None or token.revoked else issuer.lend(token, LENT_S)

    return lend


@dataclass(frozen=True, kw_only=True)
class _Model:
    service_id: ServiceId
    instances: int
    concurrency: float
    read_at: float


class Spectator:
    """Says how busy a model is; asks the store about one not more often than anything changes."""

    def __init__(self, store: Store, demand: DemandTracker, clock: Clock) -> None:
        self._store = store
        self._demand = demand
        self._clock = clock
        self._models: dict[tuple[str, str], _Model] = {}

    async def look(self, project: str, model: str) -> ModelLoad | None:
        """Return how busy it is, or None if nobody knows it by this name."""
        now = self._clock.now()
        known = self._models.get((project, model))
        if known is None or not known.read_at <= now < known.read_at + LOOK_S:
            try:
                known = await asyncio.to_thread(self._read, project, model, now)
            except NotFound:
                self._models.pop((project, model), None)
                return None
            self._models[project, model] = known
        samples = self._demand.demand(known.service_id, now).samples
        return ModelLoad(
            instances=known.instances,
            concurrency=known.concurrency,
            in_progress=int(samples[-1].in_progress) if samples else 0,
        )

    def _read(self, project: str, model: str, now: float) -> _Model:
        record = self._store.read_service(project, model)
        service = record.service
        deployment = record.deployment(service.serving_deployment) or record.deployment(
            service.desired_deployment
        )
        return _Model(
            service_id=service.id,
            instances=sum(each.status is InstanceStatus.HEALTHY for each in record.instances),
            concurrency=1.0 if deployment is None else deployment.definition.scaling.concurrency,
            read_at=now,
        )
