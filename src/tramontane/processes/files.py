"""Files of projects, wired: what answers for them at the gateway, and what frees their disk.

``control`` makes one and runs it beside its other parts.
"""

import asyncio

from tramontane.api.inference.app import make_inference_app
from tramontane.api.inference.parts import InferenceParts
from tramontane.base.clock import Clock
from tramontane.base.ids import random_id
from tramontane.processes.layout import Layout
from tramontane.processes.listening import listen_privately
from tramontane.processes.serving import ApiServer
from tramontane.reconcile.files import FileReconciler
from tramontane.store.contents import FileContents
from tramontane.store.store import Store


class Files:
    """Everything of one control plane that is about files."""

    def __init__(self, layout: Layout, store: Store, clock: Clock) -> None:
        self._socket = layout.files_socket
        self._contents = FileContents(layout.files)
        self._reconciler = FileReconciler(store=store, contents=self._contents, clock=clock)
        parts = InferenceParts(store=store, contents=self._contents, clock=clock, ids=random_id)
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
        """Collect what is not needed any more, until cancelled."""
        await self._reconciler.run()
