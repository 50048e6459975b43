"""Runs the steps of ``store.migrations``; as ``python -m tramontane.store.upgrade`` it runs apart.

Only this module imports Alembic, which is needed once and would stay in memory for good.

All steps run in one transaction, so ``kill -9`` leaves either the old tables or the new ones.
Several replicas may start at once: the first one migrates, the others wait and find it done.
"""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from tramontane.base.errors import Unsupported
from tramontane.store.database import Database, Turn, parse_url


def upgrade(database: Database) -> None:
    """Run every step that the database has not seen yet."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.write() as connection:
        database.take_turn(connection, Turn.MIGRATION)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Unsupported(
                "the database was written by a newer version of Tramontane; install that version"
            ) from error


if __name__ == "__main__":
    # The URL may hold a password: it comes on standard input, not in argv where all can read it.
    opened = Database(parse_url(sys.stdin.read().strip()))
    upgrade(opened)
    opened.close()
