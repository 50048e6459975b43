"""Have the memory and the cores of models reckoned where nobody asked for any.

Until now every definition was stored with the usual limits, whether its user had given them or not.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

USUAL: dict[str, float] = {"memory_bytes": 512 * 1024**2, "cpus": 1.0}
DEPLOYMENTS = sa.table(
    "deployments", sa.column("id", sa.Text()), sa.column("definition", sa.Text())
)


def upgrade() -> None:
    """Take the usual limits out of the definitions of models; no column changes."""
    connection = op.get_bind()
    for row in connection.execute(sa.select(DEPLOYMENTS)).mappings().all():
        definition: dict[str, Any] = json.loads(row["definition"])
        limits = definition.get("resources", {})
        usual = [name for name, value in USUAL.items() if limits.get(name) == value]
        if definition["kind"] != "model" or not usual:
            continue
        limits |= dict.fromkeys(usual)
        connection.execute(
            sa.update(DEPLOYMENTS)
            .where(DEPLOYMENTS.c.id == row["id"])
            .values(definition=json.dumps(definition))
        )
