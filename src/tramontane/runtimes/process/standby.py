"""A supervisor that waits for its instance, with everything done that can be done before.

What takes time in starting an instance is not the work but the first time: a forked process copies
each page it touches, a network namespace is made, a control group joined. The launcher keeps one
process that has all that behind it; its first instance starts about twice as fast.
"""

import asyncio
import json
import os
import socket

from tramontane.base.clock import Clock
from tramontane.domain.artifact import Artifact, Mount
from tramontane.domain.definition import Probe, Resources
from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process.endings import clear_children, remove_group
from tramontane.runtimes.process.launching import encode_arguments, resource_limits
from tramontane.runtimes.process.preparing import Assignment, Plot, break_ground
from tramontane.runtimes.process.protocol import (
    Options,
    observation_to_json,
    spec_from_json,
    spec_to_json,
    to_line,
)
from tramontane.runtimes.process.sandbox import make_sandbox
from tramontane.runtimes.process.supervisor import new_runner, supervise
from tramontane.runtimes.runtime import InstanceSpec

TAKEN = b"y"
"""What a supervisor answers when it takes an instance."""

_READ_BYTES = 256 * 1024


def stand_by(plot: Plot, options: Options, channel: socket.socket, clock: Clock) -> None:
    """Wait for an instance and run it to its end, or end when the launcher does."""
    ground = break_ground(plot)
    runner = new_runner()
    runner.run(_rehearse(plot))
    taken = _receive(channel)
    if taken is None:
        os.close(ground.stem.orders)
        runner.run(_clear(plot, clock))
        return
    spec, control = taken
    assignment = Assignment(spec=spec, paths=options.layout.instance(spec.id), options=options)
    supervise(ground, assignment, control, clock, runner)


def _receive(channel: socket.socket) -> tuple[InstanceSpec, socket.socket] | None:
    """Return what the launcher hands over; None if it is gone instead."""
    with channel:
        mark, fds, _, _ = socket.recv_fds(channel, 1, 1)
        if not mark:
            return None
        data = b""
        while chunk := channel.recv(_READ_BYTES):
            data += chunk
        if not data.endswith(b"\n"):
            return None  # the launcher died in the middle of it
        try:
            channel.sendall(TAKEN)
        except OSError:
            return None  # it died before it could tell anybody
    return spec_from_json(json.loads(data)["spec"]), socket.socket(fileno=fds[0])


async def _clear(plot: Plot, clock: Clock) -> None:
    await clear_children(plot.group, clock)
    await remove_group(plot.group, clock)


async def _rehearse(plot: Plot) -> None:
    """Go through the motions once, so that the pages they touch are this process's own already."""
    command = ("/bin/true",)
    spec = InstanceSpec(
        id=InstanceId("ins_rehearsal"),
        label="rehearsal",
        artifact=Artifact(
            digest="",
            language="",
            command=command,
            directory="/",
            mounts=(Mount(source="/usr", target="/app"),),
        ),
        command=command,
        environment=(("NAME", "value"),),
        resources=Resources(),
        probe=Probe(),
        log_path="",
    )
    heard = spec_from_json(json.loads(to_line({"spec": spec_to_json(spec)}))["spec"])
    encode_arguments(make_sandbox(heard, plot.powers.tree, visible={}, app_directory=None))
    resource_limits(heard.resources, plot.group.controllers, sandboxed=True)
    observation = Observation(instance_id=heard.id, status=ObservedStatus.STARTING)
    to_line(observation_to_json(observation))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(0))
