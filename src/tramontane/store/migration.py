"""Brings a database to the present tables; ``open_store`` calls it before anything else.

All steps run in one transaction, so ``kill -9`` leaves either the old tables or the new ones.
Several replicas may start at once: the first one migrates, the others wait and find it done.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from tramontane.store.database import Database

LOCK = 7_265_616_770_001
"""PostgreSQL advisory lock of the migration: any number, as long as it stays the same."""


def migrate(database: Database) -> None:
    """Run every step that the database has not seen yet."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
