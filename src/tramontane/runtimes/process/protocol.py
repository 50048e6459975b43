"""What the control plane, the launcher and the supervisors say to each other: lines of JSON.

A supervisor outlives the control plane that started it, so a newer control plane may meet an older
supervisor: fields are added here with defaults, never renamed.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.domain.definition import Probe, ProbeKind, Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.domain.usage import Account, Price
from tramontane.runtimes.process.layout import Layout
from tramontane.runtimes.runtime import InstanceSpec, MeterSpec

LINE_BYTES_MAX = 16 * 1024**2
"""Longest message: a spec with a large environment, or the output of ``execute``."""


class Isolation(StrEnum):
    """How strongly instances are kept apart."""

    SANDBOX = "sandbox"
    """Own namespaces, read-only root, no network but what is relayed."""
    NONE = "none"
    """Plain processes of the platform's user, who can do all that this user can."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a launcher is told once, when it starts; see ``ProcessRuntime`` for the meaning."""

    state_directory: str
    run_directory: str
    isolation: Isolation
    uid_base: int
    uid_count: int
    log_bytes_max: int
    log_files_max: int
    idle_s: float
    release: str
    """Changes when the code does; a launcher of another release is replaced."""

    @property
    def layout(self) -> Layout:
        """The paths that follow from the two directories."""
        return Layout(state=Path(self.state_directory), run=Path(self.run_directory))


def options_to_text(options: Options) -> str:
    """Return the options as JSON text for the launcher's command line; no secrets are in them."""
    return json.dumps(asdict(options))


def options_from_text(text: str) -> Options:
    """Read what ``options_to_text`` wrote."""
    value: dict[str, Any] = json.loads(text)
    value["isolation"] = Isolation(value["isolation"])
    return Options(**value)


def spec_to_json(spec: InstanceSpec) -> dict[str, Any]:
    """Return the whole spec, environment included: for the launcher's socket only."""
    return asdict(spec)


def spec_to_file(spec: InstanceSpec) -> dict[str, Any]:
    """Return the spec for the disk: names of the environment, but no values."""
    value = asdict(spec)
    value["environment"] = [name for name, _ in spec.environment]
    value["artifact"]["environment"] = [name for name, _ in spec.artifact.environment]
    return value


def spec_from_json(value: Mapping[str, Any]) -> InstanceSpec:
    """Read what ``spec_to_json`` wrote."""
    artifact = value["artifact"]
    probe: dict[str, Any] = dict(value["probe"])
    probe["kind"] = ProbeKind(probe["kind"])
    return InstanceSpec(
        id=InstanceId(value["id"]),
        label=value["label"],
        artifact=Artifact(
            digest=artifact["digest"],
            language=artifact["language"],
            command=tuple(artifact["command"]),
            directory=artifact["directory"],
            mounts=tuple(Mount(**mount) for mount in artifact["mounts"]),
            environment=_pairs(artifact["environment"]),
            listen=Listen(artifact["listen"]),
        ),
        command=tuple(value["command"]),
        environment=_pairs(value["environment"]),
        resources=Resources(**value["resources"]),
        probe=Probe(**probe),
        log_path=value["log_path"],
        egress_socket=value["egress_socket"],
        models_socket=value.get("models_socket"),
        meter=_meter_from_json(value.get("meter")),
    )


def _meter_from_json(value: Mapping[str, Any] | None) -> MeterSpec | None:
    if value is None:
        return None
    account: dict[str, Any] = dict(value["account"])
    price = Price(**account.pop("price"))
    return MeterSpec(
        engine=value["engine"],
        directory=value["directory"],
        account=Account(**account, price=price),
        requests_max=value["requests_max"],
    )


def observation_to_json(observation: Observation) -> dict[str, Any]:
    """Return the observation as a JSON object."""
    return asdict(observation)


def observation_from_json(value: Mapping[str, Any]) -> Observation:
    """Read what ``observation_to_json`` wrote; fields of a newer release are ignored."""
    return Observation(
        instance_id=InstanceId(value["instance_id"]),
        status=ObservedStatus(value["status"]),
        pid=value.get("pid"),
        endpoint=value.get("endpoint"),
        started_at=value.get("started_at"),
        ready_at=value.get("ready_at"),
        exit_code=value.get("exit_code"),
        reason=value.get("reason", ""),
        message=value.get("message", ""),
    )


def to_line(message: Mapping[str, Any]) -> bytes:
    """Return one message as it goes over a socket."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _pairs(value: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((name, content) for name, content in value)
