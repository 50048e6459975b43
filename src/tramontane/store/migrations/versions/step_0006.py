"""Note how much a token may use."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column; tokens made before have no limits."""
    op.add_column("tokens", sa.Column("limits", sa.Text()))
