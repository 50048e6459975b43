"""Keep totals of the ledger by service. They begin at nothing, as counters may."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the table; what stands in the ledger already is not counted again."""
    op.create_table(
        "usage_totals",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("totals", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "service", name=op.f("pk_usage_totals")),
    )
