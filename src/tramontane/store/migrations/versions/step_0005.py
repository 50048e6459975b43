"""Note the models that a token is limited to."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the column; tokens made before are for every model of their project."""
    op.add_column("tokens", sa.Column("models", sa.Text()))
