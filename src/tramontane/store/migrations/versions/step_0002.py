"""Name the archive and the artifact of a deployment in columns, for garbage collection."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

DEPLOYMENTS = sa.table(
    "deployments",
    sa.column("id", sa.Text()),
    sa.column("definition", sa.Text()),
    sa.column("artifact", sa.Text()),
    sa.column("source_digest", sa.Text()),
    sa.column("artifact_digest", sa.Text()),
)


def upgrade() -> None:
    """Add the columns and read their values out of the JSON beside them."""
    for name in ("source_digest", "artifact_digest"):
        op.add_column("deployments", sa.Column(name, sa.Text()))
        op.create_index(op.f(f"ix_deployments_{name}"), "deployments", [name])
    connection = op.get_bind()
    for row in connection.execute(sa.select(DEPLOYMENTS)).mappings().all():
        definition: dict[str, Any] = json.loads(row["definition"])
        artifact: dict[str, Any] = json.loads(row["artifact"] or "{}")
        connection.execute(
            sa.update(DEPLOYMENTS)
            .where(DEPLOYMENTS.c.id == row["id"])
            .values(
                source_digest=definition["source"].get("digest"),
                artifact_digest=artifact.get("digest"),
            )
        )
