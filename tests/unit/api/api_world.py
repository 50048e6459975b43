"""The real app over a real SQLite store; only what lies outside the machine is small and local."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from tramontane.api.app import make_app
from tramontane.api.feed import ServiceFeed
from tramontane.api.parts import ApiParts, LogSource
from tramontane.api.tokens import TokenIssuer
from tramontane.base.errors import Conflict, InvalidRequest, NotFound
from tramontane.base.ids import counting_ids
from tramontane.domain.cell import Capacity, Cell, EvidenceLevel, Fact
from tramontane.domain.ids import CellId, ServiceId
from tramontane.domain.instance import Instance
from tramontane.domain.inventory import DiskUsage
from tramontane.domain.model import ModelFacts, WeightsFormat
from tramontane.domain.reference import HubReference, parse_reference
from tramontane.domain.token import Scope
from tramontane.domain.weights import StoredFile, Weights
from tramontane.store.sources import SourceFiles
from tramontane.store.store import Store
from tramontane.testing.clocks import FakeClock
from tramontane.wire.schemas import ExecView, LogLine, PartView

MODEL = {"kind": "model", "source": {"model": "tiny"}}
FACTS = {
    "tiny": ModelFacts(
        format=WeightsFormat.GGUF,
        size_bytes=3_400_000,
        name="Tiny",
        architecture="llama",
        parameters=3_000_000,
        context_length=1024,
        layers=4,
        embedding_length=256,
        feed_forward_length=640,
        feed_forward_width=1920,
        attention_heads=8,
        kv_heads=2,
        kv_heads_total=8,
        key_length=32,
        value_length=32,
        vocabulary=2048,
        merges=1788,
        causal=True,
    )
}
SERVICE = "/api/v1/projects/shop/services/chat"


class SmallPlatform:
    version = "1.2.3"
    home = "(a test)"
    egress_allowed = ("127.0.0.1:5432",)

    def get_control_plane(self) -> PartView:
        return PartView(status="running", pid=42)

    def get_gateway(self) -> PartView:
        return PartView(status="running", pid=43, address="127.0.0.1:8080")

    def get_disk(self) -> DiskUsage | None:
        return DiskUsage(at=7.0, artifacts=1, toolchains=2, caches=3, archives=4, logs=5)


@dataclass
class SmallLogs:
    lines: list[LogLine] = field(default_factory=list)
    asked: list[dict[str, object]] = field(default_factory=list)

    async def read(
        self,
        service_id: ServiceId,
        sources: Sequence[LogSource],
        *,
        since: float | None = None,
        instance: str | None = None,
        tail: int | None = None,
        follow: bool = False,
    ) -> AsyncIterator[LogLine]:
        self.asked.append(
            {"sources": tuple(sources), "since": since, "instance": instance, "tail": tail}
        )
        for line in self.lines:
            yield line


@dataclass
class SmallWeights:
    """A hub where ``main`` can move, and a cache that somebody may use."""

    main: str = "1" * 40
    cached: list[Weights] = field(default_factory=list)

    def pin(self, text: str) -> str:
        reference = parse_reference(text)
        if isinstance(reference, HubReference) and not reference.pinned:
            return f"{text}@{self.main}"
        return str(reference)

    async def fetch_ahead(self, reference: str) -> Weights:
        known = next((each for each in self.cached if reference in each.references), None)
        return known or make_weights(reference, digest=None)

    async def list_weights(self) -> list[Weights]:
        return self.cached

    async def evict(self, digest: str) -> Weights:
        found = next((each for each in self.cached if each.digest == digest), None)
        if found is None:
            raise NotFound(f"no weights {digest}")
        if found.used_by:
            raise Conflict("in use")
        self.cached.remove(found)
        return found


def make_weights(
    reference: str, digest: str | None = "sha256:" + "d" * 64, used_by: tuple[str, ...] = ()
) -> Weights:
    return Weights(
        references=(reference,),
        digest=digest,
        files=(StoredFile(name="m.gguf", size_bytes=10, sha256="f" * 64),) if digest else (),
        size_bytes=10,
        done_bytes=10 if digest else 4,
        used_by=used_by,
        used_at=1.0,
        fetched_at=1.0 if digest else None,
    )


@dataclass
class World:
    """The app with everything around it, and tokens to reach it with."""

    app: FastAPI
    parts: ApiParts
    store: Store
    clock: FakeClock
    logs: SmallLogs
    nudged: list[ServiceId]
    nudged_batches: list[str]
    changed: list[str]
    revoked: list[str]
    executed: list[tuple[Instance, tuple[str, ...]]]
    weights: SmallWeights

    def mint(
        self, scope: Scope, project: str | None = None, expires_in_s: float | None = None
    ) -> str:
        return self.parts.tokens.mint(
            "test", project=project, scope=scope, expires_in_s=expires_in_s
        )[1]

    def client(self, scope: Scope | None = Scope.ADMIN, project: str | None = None):
        headers = {}
        if scope is not None:
            headers["Authorization"] = f"Bearer {self.mint(scope, project)}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://platform", headers=headers)


def build_world(store: Store, directory: Path) -> World:
    clock, ids = FakeClock(), counting_ids()
    logs = SmallLogs()
    nudged: list[ServiceId] = []
    nudged_batches: list[str] = []
    changed: list[str] = []
    revoked: list[str] = []
    executed: list[tuple[Instance, tuple[str, ...]]] = []

    async def execute(instance: Instance, command: Sequence[str], timeout_s: float) -> ExecView:
        executed.append((instance, tuple(command)))
        return ExecView(instance=instance.id, exit_code=3, stdout="out", stderr="")

    def inspect(reference: str) -> ModelFacts:
        if reference.startswith("hf://"):
            raise NotFound(f"{reference} is not on this machine")
        if reference not in FACTS:
            raise InvalidRequest(f"cannot read the model {reference}", path="source.model")
        return FACTS[reference]

    store.upsert_cell(make_cell(clock))
    weights = SmallWeights()
    parts = ApiParts(
        store=store,
        tokens=TokenIssuer(Ed25519PrivateKey.from_private_bytes(b"k" * 32), store, clock, ids),
        sources=SourceFiles(directory / "sources", ids, size_max_bytes=1024**2),
        feed=ServiceFeed(),
        clock=clock,
        ids=ids,
        nudge=nudged.append,
        nudge_batch=nudged_batches.append,
        aliases_changed=changed.append,
        revoked=revoked.append,
        limited=lambda: None,
        platform=SmallPlatform(),
        logs=logs,
        execute=execute,
        inspect_model=inspect,
        weights=weights,
        service_url=lambda project, name: f"http://{name}.{project}.localhost:8080",
        heartbeat_s=0.01,
    )
    return World(
        app=make_app(parts),
        parts=parts,
        store=store,
        clock=clock,
        logs=logs,
        nudged=nudged,
        nudged_batches=nudged_batches,
        changed=changed,
        revoked=revoked,
        executed=executed,
        weights=weights,
    )


def make_cell(clock: FakeClock) -> Cell:
    fact = Fact(
        attribute="country",
        value="DE",
        evidence=EvidenceLevel.CLAIM,
        source="the operator",
        recorded_at=clock.now(),
    )
    return Cell(
        id=CellId("cel_1"),
        name="here",
        runtime="process",
        isolation="sandbox",
        capacity=Capacity(memory_bytes=2**32, cpus=2.0),
        facts=(fact,),
    )
