"""Tells the gateway how requests for each alias are shared out, as aliases and models come and go.

The API nudges when an alias changes, the reconciler of services when a model gets or loses its
route; a look by the clock finds what another replica changed. Each look is at one project.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tramontane.base.nudges import NudgeQueue
from tramontane.domain.alias import Alias
from tramontane.domain.route import AliasRoute
from tramontane.plan.aliases import plan_alias

log = logging.getLogger(__name__)

PERIOD_S = 10.0
ALL = ""
"""Key of a look at every project; none has this name."""


class AliasMemory(Protocol):
    """What this reconciler needs of the store."""

    def list_aliases(self, project: str | None = None) -> Sequence[Alias]:
        """Return the aliases of one project, or of all."""
        ...


class AliasRoutes(Protocol):
    """What this reconciler needs of the gateway."""

    def publish_alias(self, route: AliasRoute) -> None:
        """Serve the alias so from now on."""
        ...

    def remove_alias(self, project: str, alias: str) -> None:
        """Serve the alias no longer."""
        ...


@dataclass(kw_only=True)
class AliasReconciler:
    """One platform's aliases."""

    store: AliasMemory
    routes: AliasRoutes
    models: Callable[[str], Collection[str]]
    """Takes a project, returns its services that the gateway knows as models."""
    queue: NudgeQueue[str]
    _published: dict[tuple[str, str], AliasRoute] = field(
        init=False, default_factory=dict[tuple[str, str], AliasRoute]
    )

    async def adopt(self) -> list[AliasRoute]:
        """Return every route, to be published with everything else: once, before ``run``."""
        self._published = await self._plan(None)
        return list(self._published.values())

    async def run(self) -> None:
        """Publish changes until cancelled."""
        while True:
            self.queue.nudge_in(ALL, PERIOD_S)
            project = await self.queue.take()
            try:
                await self.reconcile(project)
            except Exception:
                # One look that fails must not be the last; time is the retry.
                log.exception("reconciling aliases failed; it is tried again")
            finally:
                self.queue.done(project)

    async def reconcile(self, project: str) -> None:
        """Look at the aliases of one project, or at all of them, once."""
        wanted = await self._plan(project or None)
        for key in [key for key in self._published if project in (ALL, key[0])]:
            if key not in wanted:
                del self._published[key]
                self.routes.remove_alias(*key)
        for key, route in wanted.items():
            if self._published.get(key) != route:
                self._published[key] = route
                self.routes.publish_alias(route)

    async def _plan(self, project: str | None) -> dict[tuple[str, str], AliasRoute]:
        aliases = await asyncio.to_thread(self.store.list_aliases, project)
        models = {name: self.models(name) for name in {each.project for each in aliases}}
        return {
            (each.project, each.name): plan_alias(each, models[each.project]) for each in aliases
        }
