"""Has weights on this machine when somebody needs them: one fetch for all who want the same.

The control plane's one way to weights: builds ``ensure`` the model of a deployment, the API pins
what is deployed, fetches ahead, lists and evicts. What may be evicted follows from the store: it
says which references deployments need, and everything else is a cache.

Removing and looking something up exclude each other (``_room``), and whoever deploys has written
the reference down before it is looked up here; so nothing is removed that somebody counts on.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tramontane.base.clock import Clock
from tramontane.base.errors import Conflict, InvalidRequest, NotFound, Unsupported
from tramontane.base.progress import Progress, Reporter
from tramontane.base.sizes import format_bytes
from tramontane.domain.reference import (
    BundledReference,
    FileReference,
    RemoteReference,
    parse_reference,
)
from tramontane.domain.weights import Model, RemoteFile, StoredFile, Weights
from tramontane.plan.weights import RoomLimits, plan_room
from tramontane.weights.cache import BLOB, PARTIAL, Cache, CachedModel
from tramontane.weights.job import FetchJob
from tramontane.weights.local import check_unchanged
from tramontane.weights.settings import SourceSettings
from tramontane.weights.sources import Sources
from tramontane.weights.transport import Transport

log = logging.getLogger(__name__)

REPORT_S = 0.5
KEEP_S = 600.0
LEFTOVERS_KEPT_S = 7 * 86_400.0
"""What a fetch left that came to nothing: somebody may try it again."""

Log = Callable[[str], None]
FetchApart = Callable[[FetchJob, Callable[[int], None]], Awaitable[Mapping[str, str]]]
"""Fetches what a job says in a process of its own; see ``processes.fetching``."""
Check = Callable[[Sequence[str]], None]
"""Takes the names of a model's files; raises ``TramontaneError`` if nobody could use them."""


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """A fetch on its way."""

    reference: str
    files: tuple[RemoteFile, ...]
    source: str
    progress: Progress


@dataclass(kw_only=True)
class Fetcher:
    """The weights of one platform. ``pin`` and ``find`` block; the rest belongs to the loop."""

    cache: Cache
    settings: Callable[[], SourceSettings]
    """Read anew each time, so that a corrected setting takes effect at once."""
    fetch_apart: FetchApart
    list_users: Callable[[], Mapping[str, Collection[str]]]
    """Blocks; returns the pinned references that deployments need, and the services of each."""
    limits: RoomLimits
    clock: Clock
    transport: Transport

    _fetching: dict[str, Fetching] = field(init=False, default_factory=dict[str, Fetching])
    _locks: defaultdict[str, asyncio.Lock] = field(
        init=False, default_factory=lambda: defaultdict[str, asyncio.Lock](asyncio.Lock)
    )
    _room: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _ahead: dict[str, asyncio.Task[None]] = field(
        init=False, default_factory=dict[str, asyncio.Task[None]]
    )

    # --- for builds ----------------------------------------------------------------------------

    def pin(self, text: str) -> str:
        """Return what a reference means now, for ever; asks its source unless it says so itself."""
        reference = parse_reference(text)
        return str(reference if reference.pinned else self._sources().pin(reference))

    def find(self, reference: RemoteReference) -> Path:
        """Return the folder of a pinned reference's files. Raises ``NotFound`` if not fetched."""
        model = self.cache.find(str(reference))
        if model is None:
            raise NotFound(f"{reference} is not on this machine; fetch it: tram models fetch")
        return self.cache.folder(model)

    async def ensure(self, text: str, say: Log, check: Check = lambda _: None) -> None:
        """Return when the weights of a pinned reference are on this machine.

        ``say`` gets lines about what is going on. Raises what the user should know; what has
        arrived by then stays for the next attempt.
        """
        reference = parse_reference(text)
        match reference:
            case BundledReference():
                return
            case FileReference():
                await asyncio.to_thread(check_unchanged, reference)
                return
            case _:
                pass
        if await self._is_here(reference):
            say(f"weights: {reference} is on this machine already")
            return
        async with self._reporting(str(reference), say), self._locks[str(reference)]:
            if not await self._is_here(reference):
                await self._fetch(reference, say, check)

    async def _is_here(self, reference: RemoteReference) -> bool:
        async with self._room:
            model = await asyncio.to_thread(self.cache.find, str(reference))
            if model is not None:
                self.cache.mark_used([model.digest], self.clock.now())
            return model is not None

    async def _fetch(self, reference: RemoteReference, say: Log, check: Check) -> None:
        sources = self._sources()
        files = await asyncio.to_thread(sources.list_files, reference)
        check([each.name for each in files])
        source = sources.name(reference)
        progress = Progress(
            total_bytes=sum(each.size_bytes for each in files), started_at=self.clock.monotonic()
        )
        fetching = Fetching(reference=str(reference), files=files, source=source, progress=progress)
        async with self._room:
            missing = await asyncio.to_thread(self._make_room, fetching)
            self._fetching[str(reference)] = fetching
        try:
            count = f"{len(files)} file{'s' if len(files) != 1 else ''}"
            say(f"weights: {reference}, {count}, {format_bytes(missing)} to fetch")
            job = FetchJob(
                root=str(self.cache.root),
                reference=str(reference),
                files=files,
                settings=self.settings(),
            )
            found = await self.fetch_apart(
                job, lambda done: progress.update(done, self.clock.monotonic())
            )
            model = Model(
                files=tuple(
                    StoredFile(name=each.name, size_bytes=each.size_bytes, sha256=found[each.name])
                    for each in files
                )
            )
            async with self._room:
                now = self.clock.now()
                await asyncio.to_thread(self.cache.publish, str(reference), model, now)
        finally:
            del self._fetching[str(reference)]
        say(f"weights: {format_bytes(model.size_bytes)} are here and checked, {model.digest}")

    @asynccontextmanager
    async def _reporting(self, reference: str, say: Log) -> AsyncGenerator[None]:
        """Say how far the fetch of a reference is while the block waits for it."""
        reporter = Reporter(said_at=self.clock.monotonic())

        async def report() -> None:
            while True:
                await asyncio.sleep(REPORT_S)
                fetching = self._fetching.get(reference)
                if fetching is not None:
                    now = self.clock.monotonic()
                    if line := reporter.next_line(fetching.progress, now):
                        say(line)

        task = asyncio.ensure_future(report())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    # --- room ----------------------------------------------------------------------------------

    def _make_room(self, fetching: Fetching | None) -> int:
        """Evict so that a fetch and those under way fit; return the bytes that it misses."""
        others = list(self._fetching.values())
        every = others if fetching is None else [*others, fetching]
        needed = sum(self.cache.missing_bytes(each.files, each.source) for each in every)
        in_use = self._keys_in_use(every)
        holdings = self.cache.holdings()
        room = plan_room(holdings, in_use, needed, self.cache.free_bytes(), self.limits)
        if room.refusal and fetching is not None:
            raise Unsupported(
                f"no room for {fetching.reference}: {room.refusal}; "
                "see tram models cache, or raise --weights-limit of tram up"
            )
        for key in room.evict:
            log.info("evicting weights %s: the room is needed", key)
            self.cache.evict(key)
        return 0 if fetching is None else self.cache.missing_bytes(fetching.files, fetching.source)

    def _keys_in_use(self, fetching: Sequence[Fetching]) -> set[str]:
        keys = {model.digest for each in self.list_users() if (model := self.cache.find(each))}
        for each in fetching:
            keys |= self.cache.keys_of(each.files, each.source)
        return keys

    async def run(self) -> None:
        """Keep the cache within its limits and fetch what is asked for ahead; until cancelled."""
        while True:
            try:
                await self.keep()
            except Exception:
                log.exception("keeping the weights within their limit failed; it is tried again")
            await asyncio.sleep(KEEP_S)

    async def keep(self) -> None:
        """Note what is in use, and evict what is over the limit."""
        async with self._room:
            await asyncio.to_thread(self._keep)

    def _keep(self) -> None:
        now = self.clock.now()
        in_use = self._keys_in_use(list(self._fetching.values()))
        self.cache.mark_used(in_use, now)
        for each in self.cache.holdings():
            is_leftover = each.key.startswith((BLOB, PARTIAL)) and each.key not in in_use
            if is_leftover and now - each.used_at > LEFTOVERS_KEPT_S:
                self.cache.evict(each.key)
        self._make_room(None)

    # --- for people ----------------------------------------------------------------------------

    async def fetch_ahead(self, reference: str) -> Weights:
        """Begin to fetch a pinned reference, or go on, and return how far it is.

        Ask again to know more. A fetch that failed is raised once, and the next call begins anew.
        """
        if isinstance(parse_reference(reference), BundledReference | FileReference):
            raise InvalidRequest(
                f"{reference} is on the platform's machine already; nothing is fetched for it",
                path="model",
            )
        task = self._ahead.get(reference)
        if task is not None and task.done():
            del self._ahead[reference]
            task.result()
        found = await self._look(reference)
        if found is None or found.digest is None:
            if reference not in self._ahead:
                self._ahead[reference] = asyncio.ensure_future(
                    self.ensure(reference, lambda _: None)
                )
            found = found or Weights(
                references=(reference,),
                digest=None,
                files=(),
                size_bytes=0,
                done_bytes=0,
                used_by=(),
                used_at=self.clock.now(),
                fetched_at=None,
            )
        return found

    async def _look(self, reference: str) -> Weights | None:
        listed = await self.list_weights()
        return next((each for each in listed if reference in each.references), None)

    async def list_weights(self) -> list[Weights]:
        """Return what is in the cache and on its way there, the most recently used first."""
        async with self._room:
            models = await asyncio.to_thread(self.cache.list_models)
        users = await asyncio.to_thread(self.list_users)
        coming = [self._show_fetching(each, users) for each in self._fetching.values()]
        return [*coming, *(self._show(each, users) for each in models)]

    async def evict(self, digest: str) -> Weights:
        """Remove a model from the cache. Raises ``Conflict`` if it is in use."""
        async with self._room:
            models = await asyncio.to_thread(self.cache.list_models)
            users = await asyncio.to_thread(self.list_users)
            shown = [self._show(each, users) for each in models]
            found = next((each for each in shown if each.digest == digest), None)
            if found is None:
                raise NotFound(f"no weights {digest} are in the cache; see: tram models cache")
            if found.used_by:
                raise Conflict(
                    f"the weights {digest} are used by {', '.join(found.used_by)}: "
                    "delete it first, or deploy another model there"
                )
            await asyncio.to_thread(self.cache.evict, digest)
        return found

    def _show(self, cached: CachedModel, users: Mapping[str, Collection[str]]) -> Weights:
        return Weights(
            references=cached.references,
            digest=cached.model.digest,
            files=cached.model.files,
            size_bytes=cached.model.size_bytes,
            done_bytes=cached.model.size_bytes,
            used_by=_users_of(cached.references, users),
            used_at=cached.used_at,
            fetched_at=cached.fetched_at,
        )

    def _show_fetching(self, fetching: Fetching, users: Mapping[str, Collection[str]]) -> Weights:
        return Weights(
            references=(fetching.reference,),
            digest=None,
            files=(),
            size_bytes=fetching.progress.total_bytes,
            done_bytes=fetching.progress.done_bytes,
            used_by=_users_of((fetching.reference,), users),
            used_at=self.clock.now(),
            fetched_at=None,
        )

    def _sources(self) -> Sources:
        return Sources(self.settings(), self.transport, self.clock)


def _users_of(references: Sequence[str], users: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    found = {user for each in references for user in users.get(each, ())}
    return tuple(sorted(found))
