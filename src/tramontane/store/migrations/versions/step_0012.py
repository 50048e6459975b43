"""Keep with a request where it stands in its caller's trace."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; of what is there already, nobody knows."""
    op.add_column("usage", sa.Column("traceparent", sa.Text()))
