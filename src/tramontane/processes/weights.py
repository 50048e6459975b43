"""Makes the control plane's way to weights: limits from the disk, settings from the operator."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace

from tramontane.base.clock import Clock
from tramontane.domain.route import EgressBounds
from tramontane.plan.weights import RoomLimits
from tramontane.processes.fetching import fetch_apart
from tramontane.processes.layout import Layout
from tramontane.processes.sources import read_sources
from tramontane.store.store import Store
from tramontane.weights.cache import Cache
from tramontane.weights.fetcher import Fetcher
from tramontane.weights.transport import Transport

SHARE = 0.5
"""Of the disk, unless the operator says otherwise."""
FREE_SHARE = 0.05
FREE_BYTES_MAX = 10 * 1024**3


def make_fetcher(
    layout: Layout,
    store: Store,
    clock: Clock,
    *,
    bytes_max: int | None,
    bounds: Callable[[], EgressBounds],
) -> Fetcher:
    """Return it; raises ``InvalidRequest`` if the operator's settings cannot be read."""
    environment = dict(os.environ)
    # Now, so that a mistake is told by `tram up` and not to whoever deploys first.
    read_sources(layout.home, environment)
    cache = Cache(layout.weights)
    cache.ensure_folders()
    total = cache.total_bytes()
    return Fetcher(
        cache=cache,
        settings=lambda: replace(read_sources(layout.home, environment), bounds=bounds()),
        fetch_apart=fetch_apart,
        list_users=store.list_weights_users,
        limits=RoomLimits(
            bytes_max=int(total * SHARE) if bytes_max is None else bytes_max,
            free_bytes_min=min(int(total * FREE_SHARE), FREE_BYTES_MAX),
        ),
        clock=clock,
        transport=Transport(threading.Event().wait),
    )
