"""The control plane: one process that decides, and tells Envoy and the runtimes.

``tram up`` starts it. ``Control.run`` is the list of its parts, in the order of their start; each
line says what the part needs. Killing it stops no instance and no request: the next start adopts
what runs. It prints one JSON line, ``ready`` or ``failed``, and logs to stderr.
"""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from tramontane import __version__
from tramontane.api.app import make_app
from tramontane.api.feed import ServiceFeed
from tramontane.api.parts import ApiParts
from tramontane.api.tokens import TokenIssuer, load_signing_key
from tramontane.base.clock import SystemClock
from tramontane.base.errors import Conflict, NotFound, TramontaneError, Unsupported
from tramontane.base.files import write_private
from tramontane.base.ids import random_id
from tramontane.base.nudges import NudgeQueue
from tramontane.builders.garbage import BuildStorage
from tramontane.builders.settings import BuildSettings
from tramontane.builders.settings import Isolation as BuildIsolation
from tramontane.domain.cell import Cell
from tramontane.domain.definition import KEY_VARIABLE, URL_VARIABLE, Definition
from tramontane.domain.ids import CellId, DeploymentId, ServiceId
from tramontane.domain.instance import Instance
from tramontane.domain.inventory import DiskUsage, ItemKind
from tramontane.domain.load import UpstreamLoad
from tramontane.domain.route import EgressBounds
from tramontane.domain.service import Service
from tramontane.gateway.bootstrap import EnvoyPaths
from tramontane.gateway.envoy import Envoy, EnvoyOptions
from tramontane.gateway.gateway import Gateway, GatewayCallbacks
from tramontane.gateway.options import GatewayOptions
from tramontane.gateway.server import Rejection
from tramontane.metering.allowances import Allowances
from tramontane.processes.arguments import Address, ControlArguments, parse_control_arguments
from tramontane.processes.artifacts import ArtifactMaker
from tramontane.processes.files import Files
from tramontane.processes.gpus import facts_of, find_gpus
from tramontane.processes.interpreter import find_engine_files
from tramontane.processes.layout import Layout, open_layout, open_run
from tramontane.processes.listening import check_free, listen
from tramontane.processes.logs import LogFiles, LogStorage
from tramontane.processes.machine import (
    Claim,
    check_country,
    cost_facts,
    keep_claim,
    make_build_resources,
    make_cell,
    memory_bytes,
    read_claim,
)
from tramontane.processes.models import ModelFiles
from tramontane.processes.network import (
    check_allowed,
    describe_allowed,
    keep_allowed,
    keep_bounds,
    read_allowed,
    read_own_networks,
)
from tramontane.processes.rotation import keep_rotating
from tramontane.processes.serving import ApiServer
from tramontane.processes.telemetry import WILDCARDS, read_resource
from tramontane.processes.weights import make_fetcher
from tramontane.reconcile.aliases import AliasReconciler
from tramontane.reconcile.builds import BuildReconciler
from tramontane.reconcile.demand import DemandTracker, service_of
from tramontane.reconcile.garbage import GarbageReconciler
from tramontane.reconcile.keys import ALL, KeyReconciler
from tramontane.reconcile.ledger import LedgerReconciler
from tramontane.reconcile.services import ModelAccess, ServiceReconciler
from tramontane.reconcile.specs import InstancePaths
from tramontane.reconcile.traces import TraceReconciler
from tramontane.runtimes.process.examination import find_bubblewrap
from tramontane.runtimes.process.protocol import Isolation
from tramontane.runtimes.process.runtime import ProcessRuntime
from tramontane.runtimes.runtime import Runtime
from tramontane.store.migration import migrate_apart
from tramontane.store.sources import SourceFiles
from tramontane.store.store import Store, open_store
from tramontane.wire.collector import Collector
from tramontane.wire.otlp import Sender as SpanSender
from tramontane.wire.schemas import ExecView, PartView

log = logging.getLogger("tramontane")

DOMAIN = "localhost"
"""Services answer at ``<service>.<project>.localhost``: this machine, by RFC 6761."""
LIBRARY_LEVELS = {
    # Every question to Envoy's administration.
    "httpx": logging.WARNING,
    # What strangers send that is no HTTP, or asks for WebSockets: told to them, and no news to us.
    "uvicorn.error": logging.ERROR,
}
READY_S = 30.0
INSTANCE_KEY_S = 86400.0
"""How long the key in a sandbox is good anywhere else."""
LAUNCHER_IDLE_S = 7 * 86400.0


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What ``tram status`` tells about the platform's own parts."""

    version: str
    home: str
    api: Address
    gateway_address: Address
    started_at: float
    envoy: Envoy
    egress_allowed: Sequence[str]
    garbage: GarbageReconciler

    def get_control_plane(self) -> PartView:
        """Return this process."""
        return PartView(
            status="running",
            pid=os.getpid(),
            address=f"http://{self.api}",
            started_at=self.started_at,
        )

    def get_gateway(self) -> PartView:
        """Return Envoy."""
        pid = self.envoy.pid
        return PartView(
            status="running" if pid else "starting",
            pid=pid,
            address=f"http://{self.gateway_address}",
        )

    def get_disk(self) -> DiskUsage | None:
        """Return what the platform's things take up, if it was found out already."""
        return self.garbage.usage


class Control:
    """The parts of one control plane, made from its arguments."""

    def __init__(self, arguments: ControlArguments, layout: Layout, store: Store) -> None:
        self._arguments = arguments
        self._layout = layout
        self._store = store
        self._clock = SystemClock()
        self._sources = SourceFiles(layout.sources, random_id)
        self._stop = asyncio.Event()
        self._queue: NudgeQueue[ServiceId] = NudgeQueue(self._clock.monotonic)
        self._builds: NudgeQueue[DeploymentId] = NudgeQueue(self._clock.monotonic)
        self._keys: NudgeQueue[str] = NudgeQueue(self._clock.monotonic)
        self._aliases: NudgeQueue[str] = NudgeQueue(self._clock.monotonic)
        self._demand = DemandTracker(self._clock.now())
        self._issuer = TokenIssuer(
            load_signing_key(layout.signing_key), store, self._clock, random_id
        )
        self._files = Files(
            layout,
            store,
            self._clock,
            issuer=self._issuer,
            demand=self._demand,
            gateway=arguments.gateway,
        )
        self._feed = ServiceFeed()
        self._envoy_paths = EnvoyPaths(directory=layout.gateway, sockets=layout.run)
        self._bounds = self._decide_bounds()
        self._fetcher = make_fetcher(
            layout,
            store,
            self._clock,
            bytes_max=arguments.weights_bytes_max,
            bounds=self._bounds_now,
        )
        self._models = ModelFiles(fetcher=self._fetcher)

    async def run(self) -> None:
        """Start everything, say so, and stay until SIGTERM or SIGINT."""
        arguments, layout, clock = self._arguments, self._layout, self._clock
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        api_socket = listen(arguments.api, "--api")
        envoy = Envoy(paths=self._envoy_paths, options=EnvoyOptions(), clock=clock)
        envoy.adopt()
        check_free(arguments.gateway, "--gateway", adopted=envoy.pid)
        # Left by an earlier run that was killed: until we are ready there is no platform to find.
        layout.platform.unlink(missing_ok=True)
        await asyncio.to_thread(self._sources.remove_partial)
        runtime, cell = await self._make_cell()
        await asyncio.to_thread(self._issuer.ensure_admin_token, layout.credentials)
        gateway = self._make_gateway()
        services = self._make_services(cell, runtime, gateway, self._make_access())
        builds = self._make_builds()
        keys = self._make_keys(gateway)
        aliases = self._make_aliases(services, gateway)
        garbage = self._make_garbage(cell, runtime)
        ledger = self._make_ledger(keys)
        api = self._make_api(self._make_facts(envoy, garbage), {cell.id: runtime}, ledger.limit)

        # What runs is known before anything is decided; Envoy is told only the whole truth.
        await services.adopt()
        gateway.publish_bounds(self._bounds)
        await _publish_all(gateway, services, keys, aliases)
        await gateway.start()
        async with asyncio.TaskGroup() as group:
            serving = (
                group.create_task(api.serve(sockets=[api_socket])),
                group.create_task(self._files.serve()),
            )
            loops = [
                group.create_task(each)
                for each in (
                    services.run(),
                    builds.run(),
                    keys.run(),
                    aliases.run(),
                    garbage.run(),
                    ledger.run(),
                    self._send_traces(),
                    self._files.run(),
                    self._fetcher.run(),
                    envoy.watch(),
                    keep_rotating((layout.access_log, layout.egress_log), envoy.reopen_logs),
                    keep_bounds(self._bounds, gateway.publish_bounds),
                )
            ]
            await envoy.wait_ready(READY_S)
            await gateway.wait_applied(READY_S)
            # What was imported stays: a collection that walks over it would fall into some wake.
            gc.freeze()
            self._announce()
            await self._stop.wait()
            log.info("stopping: a signal asked for it")
            api.should_exit = True
            self._files.stop()
            await asyncio.wait(serving)
            for task in loops:
                task.cancel()
        await gateway.close()
        await runtime.close()

    async def _make_cell(self) -> tuple[Runtime, Cell]:
        """Return this machine as a cell, and what runs instances in it."""
        arguments, layout = self._arguments, self._layout
        runtime = ProcessRuntime(
            layout.instances,
            layout.run,
            clock=self._clock,
            isolation=Isolation(arguments.isolation),
            # Kept for the platform's whole life: a wake must not wait for an interpreter.
            launcher_idle_s=LAUNCHER_IDLE_S,
        )
        await _require(runtime)
        gpus = facts_of(await asyncio.to_thread(find_gpus), self._clock.now())
        known = await asyncio.to_thread(self._store.list_cells)
        costs = cost_facts(arguments.hourly_cost, known, self._clock.now())
        cell = make_cell(self._claim(), runtime.kind, arguments.isolation, (*gpus, *costs))
        await asyncio.to_thread(self._store.upsert_cell, cell)
        return runtime, cell

    def _make_gateway(self) -> Gateway:
        arguments, layout = self._arguments, self._layout
        return Gateway(
            socket_path=self._envoy_paths.xds_socket,
            clock=self._clock,
            callbacks=GatewayCallbacks(
                on_wake=self._on_wake, on_load=self._on_load, on_rejected=_on_rejected
            ),
            options=GatewayOptions(
                address=arguments.gateway.host,
                port=arguments.gateway.port,
                domain=DOMAIN,
                access_log=layout.access_log,
                egress_log=layout.egress_log,
                files_socket=layout.files_socket,
            ),
        )

    def _make_access(self) -> ModelAccess:
        """Return what makes the variables of instances that are bound to models."""
        sandboxed = self._arguments.isolation == "sandbox"

        def access(service: Service, definition: Definition, instance: Instance) -> dict[str, str]:
            if not definition.models:
                return {}
            # In a sandbox the way itself is the proof, and the key may end before the instance.
            lasts_s = INSTANCE_KEY_S if sandboxed else None
            key = self._issuer.mint_for_instance(service, instance.id, definition.models, lasts_s)
            return {KEY_VARIABLE: key, URL_VARIABLE: f"http://{self._arguments.gateway}/v1"}

        return access

    def _make_services(
        self, cell: Cell, runtime: Runtime, gateway: Gateway, access: ModelAccess
    ) -> ServiceReconciler:
        return ServiceReconciler(
            store=self._store,
            runtimes={cell.id: runtime},
            cells=(cell,),
            routes=gateway,
            demand=self._demand,
            queue=self._queue,
            builds=self._builds,
            paths=InstancePaths(
                logs=str(self._layout.logs),
                sockets=str(self._layout.run),
                ledger=str(self._layout.ledger),
            ),
            clock=self._clock,
            ids=random_id,
            on_change=self._feed.announce,
            on_models_change=self._aliases.nudge,
            check_start=self._models.check_unchanged,
            model_access=access,
        )

    def _make_builds(self) -> BuildReconciler:
        return BuildReconciler(
            store=self._store,
            make_artifact=self._make_maker(self._bounds_now).make,
            queue=self._builds,
            services=self._queue,
            clock=self._clock,
        )

    def _make_ledger(self, keys: KeyReconciler) -> LedgerReconciler:
        return LedgerReconciler(
            store=self._store,
            directory=self._layout.ledger,
            allowances=Allowances(self._layout.ledger),
            clock=self._clock,
            on_spent=keys.put_spent,
        )

    async def _send_traces(self) -> None:
        """Send spans for as long as this runs, if somebody wants them."""
        options, gateway = self._arguments.collector, self._arguments.gateway
        if options is None:
            return
        known = gateway.host not in WILDCARDS
        collector = Collector(options)
        traces = TraceReconciler(
            store=self._store,
            receiver=collector,
            sender=SpanSender(
                version=__version__,
                resource=read_resource(__version__, os.environ),
                address=gateway.host if known else None,
                port=gateway.port if known else None,
            ),
            clock=self._clock,
        )
        log.info("spans of requests go to %s", options.url)
        try:
            await traces.run()
        finally:
            await collector.close()

    def _make_keys(self, gateway: Gateway) -> KeyReconciler:
        return KeyReconciler(
            store=self._store,
            public_jwk=self._issuer.public_jwk(),
            issuer=self._issuer.issuer,
            publish=gateway.publish_trust,
            queue=self._keys,
        )

    def _make_aliases(self, services: ServiceReconciler, gateway: Gateway) -> AliasReconciler:
        return AliasReconciler(
            store=self._store, routes=gateway, models=services.models_now, queue=self._aliases
        )

    def _make_garbage(self, cell: Cell, runtime: Runtime) -> GarbageReconciler:
        builds = BuildStorage(self._layout.builds)
        return GarbageReconciler(
            store=self._store,
            storages={
                ItemKind.ARTIFACT: builds,
                ItemKind.LAYER: builds,
                ItemKind.CACHE: builds,
                ItemKind.LEFTOVER: builds,
                ItemKind.ARCHIVE: self._sources,
                ItemKind.LOG: LogStorage(self._layout.logs),
            },
            runtimes={cell.id: runtime},
            limits=self._arguments.limits,
            clock=self._clock,
        )

    def _on_wake(self, upstream: str) -> None:
        service_id = service_of(upstream)
        self._demand.record_wake(service_id, self._clock.now())
        self._queue.nudge(service_id)

    def _on_load(self, load: UpstreamLoad) -> None:
        self._files.batches.note_report()
        if self._demand.record_load(load):
            self._queue.nudge(service_of(load.upstream))

    def _claim(self) -> Claim | None:
        path = self._layout.home / "claim.json"
        country = self._arguments.country
        if country is None:
            return read_claim(path)
        claim = Claim(
            country=check_country(country),
            operator=self._arguments.operator,
            note=f"claimed at tram up by {self._arguments.operator or 'nobody by name'}",
            declared_at=self._clock.now(),
        )
        keep_claim(path, claim)
        return claim

    def _bounds_now(self) -> EgressBounds:
        """Return how far any way out may lead, with this machine's addresses as they are now."""
        return replace(self._bounds, own=read_own_networks())

    def _decide_bounds(self) -> EgressBounds:
        arguments, path = self._arguments, self._layout.egress_allowed
        allowed = arguments.egress_allowed
        bounds = EgressBounds(
            own=read_own_networks(),
            api_port=arguments.api.port,
            allowed=read_allowed(path) if allowed is None else allowed,
        )
        if allowed is not None:
            check_allowed(bounds)
            keep_allowed(path, allowed)
        return bounds

    def _make_maker(self, bounds: Callable[[], EgressBounds]) -> ArtifactMaker:
        sandboxed = self._arguments.isolation == "sandbox"
        return ArtifactMaker(
            layout=self._layout,
            sources=self._sources,
            settings=BuildSettings(
                root=self._layout.builds,
                environment=dict(os.environ),
                isolation=BuildIsolation.BUBBLEWRAP if sandboxed else BuildIsolation.NONE,
                bwrap=find_bubblewrap() if sandboxed else "",
                confinement=(sys.executable, "-P", "-m", "tramontane.runtimes.process.confining"),
                resources=make_build_resources(memory_bytes(), float(os.cpu_count() or 1)),
                bounds=bounds,
            ),
            engine=find_engine_files(),
            models=self._models,
            fetcher=self._fetcher,
            clock=self._clock,
            project_of=self._project_of,
        )

    def _project_of(self, service_id: ServiceId) -> str:
        record = self._store.read_service_by_id(service_id)
        if record is None:
            raise NotFound(f"service {service_id} was deleted while it was being built")
        return record.service.project

    def _make_facts(self, envoy: Envoy, garbage: GarbageReconciler) -> Facts:
        return Facts(
            version=__version__,
            home=str(self._layout.home),
            api=self._arguments.api,
            gateway_address=self._arguments.gateway,
            started_at=self._clock.now(),
            envoy=envoy,
            egress_allowed=describe_allowed(self._bounds.allowed),
            garbage=garbage,
        )

    def _make_api(
        self, facts: Facts, runtimes: dict[CellId, Runtime], limited: Callable[[], None]
    ) -> ApiServer:
        arguments = self._arguments

        async def execute(instance: Instance, command: Sequence[str], timeout_s: float) -> ExecView:
            runtime = runtimes.get(instance.cell_id)
            if runtime is None:
                raise NotFound(f"instance {instance.id} runs in no cell of this platform")
            done = await runtime.execute(instance.id, command, timeout_s)
            return ExecView(
                instance=instance.id,
                exit_code=done.exit_code,
                stdout=done.stdout.decode(errors="replace"),
                stderr=done.stderr.decode(errors="replace"),
            )

        parts = ApiParts(
            store=self._store,
            tokens=self._issuer,
            sources=self._sources,
            feed=self._feed,
            clock=self._clock,
            ids=random_id,
            nudge=self._queue.nudge,
            nudge_batch=self._files.batches.queue.nudge,
            aliases_changed=self._aliases.nudge,
            revoked=lambda _: self._keys.nudge(ALL),
            limited=limited,
            platform=facts,
            logs=LogFiles(logs=self._layout.logs, egress=self._layout.egress_log),
            execute=execute,
            inspect_model=self._models.inspect,
            weights=self._fetcher,
            service_url=lambda project, service: (
                f"http://{service}.{project}.{DOMAIN}:{arguments.gateway.port}"
            ),
        )
        return ApiServer(make_app(parts))

    def _announce(self) -> None:
        arguments, layout = self._arguments, self._layout
        addresses = {
            "api": f"http://{arguments.api}",
            "gateway": f"http://{arguments.gateway}",
            "domain": DOMAIN,
        }
        write_private(layout.platform, json.dumps(addresses, indent=2) + "\n")
        log.info("Tramontane %s is ready", __version__)
        _say({"event": "ready", "pid": os.getpid(), **addresses})


async def _publish_all(
    gateway: Gateway, services: ServiceReconciler, keys: KeyReconciler, aliases: AliasReconciler
) -> None:
    trust, names = await keys.read_trust(), await aliases.adopt()
    gateway.publish_all(services.routes_now(), services.egress_now(), trust, names)


def _on_rejected(rejection: Rejection) -> None:
    log.error(
        "the gateway refused %s %s: %s",
        rejection.type_url.rpartition(".")[2],
        ", ".join(rejection.names),
        rejection.message,
    )


async def _require(runtime: Runtime) -> None:
    """Refuse to start on a machine that cannot keep instances apart as was asked."""
    for capability in await runtime.capabilities():
        if capability.required and not capability.offered:
            raise Unsupported(
                f"this machine offers no {capability.name}: {capability.detail}; "
                "or start with --isolation none, which keeps nothing apart"
            )


def _lock(layout: Layout) -> TextIO:
    """Hold the platform's lock until this process ends. Raises ``Conflict`` if another does."""
    file = layout.hold()
    if file is None:
        raise Conflict(
            f"a control plane already runs for {layout.home}",
            next_step="tram status; if that does not answer: tram down, then tram up",
        )
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _say(event: dict[str, object]) -> None:
    print(json.dumps(event), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a control plane; return 0 after a stop that was asked for, 1 if it could not start."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    for library, level in LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(level)
    # Envoy inherits it, and each of its connections takes a file.
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    try:
        arguments = parse_control_arguments(sys.argv[1:] if argv is None else argv)
        layout = open_layout(arguments.home)
        with _lock(layout):
            open_run(layout)
            database = arguments.database or layout.database
            # Not uvloop: it starts subprocesses with a plain fork, which gRPC does not survive.
            asyncio.run(_run(arguments, layout, database))
    except TramontaneError as error:
        return _fail(error)
    except BaseExceptionGroup as group:
        known = group.subgroup(TramontaneError)
        if known is None:
            raise
        return _fail(_first(known))
    return 0


def _fail(error: TramontaneError) -> int:
    _say(
        {
            "event": "failed",
            "code": error.code,
            "message": error.message,
            "next": error.next_step,
        }
    )
    return 1


async def _run(arguments: ControlArguments, layout: Layout, database: Path | str) -> None:
    await asyncio.to_thread(migrate_apart, database)
    store = await asyncio.to_thread(open_store, database)
    try:
        await Control(arguments, layout, store).run()
    finally:
        store.close()


def _first(group: BaseExceptionGroup[TramontaneError]) -> TramontaneError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


if __name__ == "__main__":
    sys.exit(main())
