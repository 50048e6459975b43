"""The store as its callers see it: one object, every method safe to call from any thread.

All methods block on the database; asyncio code calls them with ``asyncio.to_thread``.
"""

from pathlib import Path

from tramontane.store.aliases import Aliases
from tramontane.store.batches import Batches
from tramontane.store.cells import Cells
from tramontane.store.counts import Counts
from tramontane.store.database import Database, parse_url, sqlite_url
from tramontane.store.events import Events
from tramontane.store.files import Files
from tramontane.store.leases import Leases
from tramontane.store.migration import migrate
from tramontane.store.projects import Projects
from tramontane.store.records import Records
from tramontane.store.requests import Requests
from tramontane.store.retention import Retention
from tramontane.store.services import Services
from tramontane.store.settings import Settings
from tramontane.store.snapshots import Snapshots
from tramontane.store.sources import Sources
from tramontane.store.tokens import Tokens
from tramontane.store.usage import UsageLedger


class Store(
    Projects,
    Services,
    Aliases,
    Records,
    Snapshots,
    Events,
    Cells,
    Counts,
    Tokens,
    UsageLedger,
    Sources,
    Files,
    Batches,
    Retention,
    Settings,
    Leases,
    Requests,
):
    """The platform's memory. The desired side is written by users, the observed by reconcilers."""

    def close(self) -> None:
        """Close the connections; calls that are under way end first."""
        self._database.close()


def open_store(database: Path | str) -> Store:
    """Return the store in a SQLite file, or behind a ``postgresql://`` URL, tables up to date."""
    url = sqlite_url(database) if isinstance(database, Path) else parse_url(database)
    opened = Database(url)
    try:
        migrate(opened)
    except BaseException:
        opened.close()
        raise
    return Store(opened)
