"""Keeps the newest observation of every instance, told by the supervisors as things happen.

``runtime`` holds one ``Followers``. Each instance has one connection to its supervisor; while it
stands the supervisor lives, and when it ends the instance has ended or its supervisor was killed.
Connections are handled by callbacks on the event loop, so nothing is polled and there is no task
that could get lost.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from tramontane.domain.ids import InstanceId
from tramontane.domain.observation import Observation, ObservedStatus
from tramontane.runtimes.process.protocol import observation_from_json, to_line

_READ_BYTES = 64 * 1024


class Followers:
    """All instances this process knows of."""

    def __init__(self) -> None:
        self._connections: dict[InstanceId, _Connection] = {}
        self._newest: dict[InstanceId, Observation] = {}
        self._changed: dict[InstanceId, None] = {}
        """In order of their first change that was not yielded yet."""
        self._lost: dict[InstanceId, None] = {}
        self._event = asyncio.Event()

    def follow(self, instance_id: InstanceId, control: Path) -> bool:
        """Connect to a supervisor; False if there is none that listens."""
        if instance_id in self._connections:
            return True
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Never waits: a Unix socket takes the connection at once or refuses it.
            connection.setblocking(False)
            connection.connect(str(control))
            connection.send(to_line({"op": "watch"}))
        except BlockingIOError:  # its backlog is full: it lives
            connection.close()
            return True
        except OSError:
            connection.close()
            return False
        self._connections[instance_id] = _Connection(self, instance_id, connection)
        return True

    def tell(self, observation: Observation) -> None:
        """Take a newer observation."""
        instance_id = observation.instance_id
        if self._newest.get(instance_id) == observation:
            return
        self._newest[instance_id] = observation
        self._changed[instance_id] = None
        self._event.set()

    def lose(self, instance_id: InstanceId) -> None:
        """Note that the connection to a supervisor ended; ``take_lost`` hands it on."""
        self._connections.pop(instance_id, None)
        self._lost[instance_id] = None
        self._event.set()

    def take_lost(self) -> list[InstanceId]:
        """Return the instances whose supervisors went away since the last call."""
        lost, self._lost = list(self._lost), {}
        return lost

    def newest(self, instance_id: InstanceId) -> Observation | None:
        """Return what is known of an instance."""
        return self._newest.get(instance_id)

    def is_followed(self, instance_id: InstanceId) -> bool:
        """Tell whether the supervisor is connected."""
        return instance_id in self._connections

    def has_ended(self, instance_id: InstanceId) -> bool:
        """Tell whether the end of an instance is known."""
        newest = self._newest.get(instance_id)
        return newest is not None and newest.status is ObservedStatus.EXITED

    def repeat_all(self) -> None:
        """Have ``changes`` yield the newest state of every instance again."""
        for instance_id in self._newest:
            self._changed[instance_id] = None
        self._event.set()

    def forget(self, instance_id: InstanceId) -> None:
        """Drop all that is known of an instance."""
        connection = self._connections.pop(instance_id, None)
        if connection is not None:
            connection.close()
        for known in (self._newest, self._changed, self._lost):
            known.pop(instance_id, None)

    async def wait(self) -> None:
        """Return when something changed or was lost."""
        await self._event.wait()
        self._event.clear()

    async def take_changes(self) -> AsyncIterator[Observation]:
        """Yield each instance that changed since, once, in its newest state."""
        while self._changed:
            instance_id = next(iter(self._changed))
            del self._changed[instance_id]
            observation = self._newest.get(instance_id)
            if observation is not None:
                yield observation

    def close(self) -> None:
        """End all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class _Connection:
    """One supervisor, as it tells what it sees."""

    def __init__(
        self, followers: Followers, instance_id: InstanceId, connection: socket.socket
    ) -> None:
        self._followers = followers
        self._instance_id = instance_id
        self._connection = connection
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection, self._read)

    def close(self) -> None:
        """End the connection."""
        self._loop.remove_reader(self._connection)
        self._connection.close()

    def _read(self) -> None:
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._followers.lose(self._instance_id)
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._followers.tell(observation_from_json(json.loads(line)))
