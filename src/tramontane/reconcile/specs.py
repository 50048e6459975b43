"""From an instance's row to what its runtime is told: pure, called by ``reconcile.services``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tramontane.base.errors import Unsupported
from tramontane.domain.artifact import Artifact
from tramontane.domain.cell import Cell
from tramontane.domain.definition import Definition, Probe, ProbeKind, Resources
from tramontane.domain.deployment import Deployment
from tramontane.domain.instance import Instance
from tramontane.domain.route import WaySockets
from tramontane.domain.service import Service
from tramontane.domain.usage import Account, Price
from tramontane.engines.llamacpp import LANGUAGE, METER, REQUESTS_MAX, size_arguments
from tramontane.plan.needs import needs_of
from tramontane.runtimes.runtime import InstanceSpec, MeterSpec

STOP_GRACE_S = 10.0
"""From SIGTERM to SIGKILL for what was drained before."""


@dataclass(frozen=True, kw_only=True)
class InstancePaths:
    """Where this platform keeps what instances share with it."""

    logs: str
    """Directory; one file per instance below ``<logs>/<service id>/``."""
    sockets: str
    """Short directory for the gateway's egress sockets (Unix socket paths end at 107 bytes)."""
    ledger: str
    """Directory of the books in which models' instances write down what requests used."""

    def log(self, instance: Instance) -> str:
        """Return the log file of an instance."""
        return f"{self.logs}/{instance.service_id}/{instance.id}.log"

    def ways(self, service_id: str) -> WaySockets:
        """Return the sockets on which the gateway lets this service's instances out."""
        place = f"{self.sockets}/{service_id}"
        return WaySockets(egress=f"{place}.out", models=f"{place}.models")


def make_spec(
    service: Service,
    deployment: Deployment,
    instance: Instance,
    cell: Cell,
    paths: InstancePaths,
    access: Mapping[str, str],
) -> InstanceSpec:
    """Return what the runtime needs to run ``instance``; the deployment has been built.

    ``access`` are the variables with which it reaches the models that it is bound to. Raises
    ``Unsupported`` if the cell has become too small for it.
    """
    artifact, definition = deployment.artifact, deployment.definition
    assert artifact is not None, f"{deployment.id} is placed without an artifact"
    needs = needs_of(definition, artifact.facts, cell.capacity)
    if needs.refusal is not None:
        raise Unsupported(needs.refusal.message)
    command = artifact.command
    if needs.sizing is not None:
        command = (*command, *size_arguments(needs.sizing))
    if definition.command is not None:
        command = ("/bin/sh", "-c", f"exec {definition.command}")
    environment = {
        **dict(artifact.environment),
        **dict(definition.environment),
        **access,
        "TRAM_PROJECT": service.project,
        "TRAM_SERVICE": service.name,
        "TRAM_DEPLOYMENT": str(deployment.number),
        "TRAM_INSTANCE": instance.id,
    }
    ways = paths.ways(service.id)
    return InstanceSpec(
        id=instance.id,
        label=f"{service.project}/{service.name}#{deployment.number}",
        artifact=artifact,
        command=command,
        environment=tuple(sorted(environment.items())),
        resources=needs.resources,
        probe=_probe(definition.probe, artifact),
        meter=_meter(
            service,
            artifact,
            instance,
            definition.price or price_of_time(cell, needs.resources),
            paths,
        ),
        log_path=paths.log(instance),
        egress_socket=ways.egress,
        models_socket=ways.models if definition.models else None,
    )


def price_of_time(cell: Cell, resources: Resources) -> Price:
    """Return what the time of an instance costs where its tokens have no price of their own.

    Its part of the cell is that of the memory, which is never given out twice: so all instances of
    a cell together cost no more than the cell. Cores may be promised several times.
    """
    part = min(resources.memory_bytes, cell.capacity.memory_bytes)
    return Price(hour=cell.hourly_cost * part // cell.capacity.memory_bytes)


def _meter(
    service: Service, artifact: Artifact, instance: Instance, price: Price, paths: InstancePaths
) -> MeterSpec | None:
    """Return how requests are counted, if a model answers them."""
    if artifact.language != LANGUAGE:
        return None
    return MeterSpec(
        engine=METER,
        directory=paths.ledger,
        account=Account(
            instance=instance.id,
            project=service.project,
            service=service.name,
            digest=artifact.digest,
            cell=instance.cell_id,
            price=price,
        ),
        requests_max=REQUESTS_MAX,
    )


def stop_grace_s(definition: Definition) -> float:
    """Return how long an instance may take from SIGTERM to its end.

    Requests were drained while the gateway watched; only the program itself knows what other work
    it has begun, so that gets its time here.
    """
    return STOP_GRACE_S if definition.kind.takes_requests else definition.drain_s


def _probe(wanted: Probe, artifact: Artifact) -> Probe:
    """Return the user's probe, or a better one that the artifact knows if it is the default."""
    if wanted.kind is ProbeKind.TCP and artifact.health_path is not None:
        return replace(wanted, kind=ProbeKind.HTTP, path=artifact.health_path)
    return wanted
