"""What Alembic runs for every command: hands it the connection that ``store.migration`` opened."""

from alembic import context

from tramontane.store.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # SQLite rolls DDL back like anything else once BEGIN was sent, which our engine does; so a
    # process that is killed half-way leaves the old tables, whole.
    transactional_ddl=True,
)
context.run_migrations()
