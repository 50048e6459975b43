"""Identifier types, so that a deployment's id cannot be passed where an instance's is wanted."""

from typing import NewType

ServiceId = NewType("ServiceId", str)
DeploymentId = NewType("DeploymentId", str)
InstanceId = NewType("InstanceId", str)
CellId = NewType("CellId", str)
