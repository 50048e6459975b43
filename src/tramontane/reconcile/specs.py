"""From an instance's row to what its runtime is told: pure, called by ``reconcile.services``."""

from dataclasses import dataclass

from tramontane.domain.deployment import Deployment
from tramontane.domain.instance import Instance
from tramontane.domain.service import Service
from tramontane.runtimes.runtime import InstanceSpec


@dataclass(frozen=True, kw_only=True)
class InstancePaths:
    """Where this platform keeps what instances share with it."""

    logs: str
    """Directory; one file per instance below ``<logs>/<service id>/``."""
    sockets: str
    """Short directory for the gateway's egress sockets (Unix socket paths end at 107 bytes)."""

    def log(self, instance: Instance) -> str:
        """Return the log file of an instance."""
        return f"{self.logs}/{instance.service_id}/{instance.id}.log"

    def egress(self, service_id: str) -> str:
        """Return the socket on which the gateway lets this service's instances out."""
        return f"{self.sockets}/{service_id}.out"


def make_spec(
    service: Service, deployment: Deployment, instance: Instance, paths: InstancePaths
) -> InstanceSpec:
    """Return what the runtime needs to run ``instance``; the deployment has been built."""
    artifact, definition = deployment.artifact, deployment.definition
    assert artifact is not None, f"{deployment.id} is placed without an artifact"
    command = artifact.command
    if definition.command is not None:
        command = ("/bin/sh", "-c", f"exec {definition.command}")
    environment = {
        **dict(artifact.environment),
        **dict(definition.environment),
        "TRAM_PROJECT": service.project,
        "TRAM_SERVICE": service.name,
        "TRAM_DEPLOYMENT": str(deployment.number),
        "TRAM_INSTANCE": instance.id,
    }
    return InstanceSpec(
        id=instance.id,
        label=f"{service.project}/{service.name}#{deployment.number}",
        artifact=artifact,
        command=command,
        environment=tuple(sorted(environment.items())),
        resources=definition.resources,
        probe=definition.probe,
        log_path=paths.log(instance),
        egress_socket=paths.egress(service.id),
    )
