"""Number the lines of the ledger in the order of their coming."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the number, and give one to what is there: by the time of arrival."""
    op.add_column("usage", sa.Column("position", sa.BigInteger()))
    op.execute(
        "UPDATE usage SET position = numbered.number FROM (SELECT instance, sequence, "
        "row_number() OVER (ORDER BY at, instance, sequence) AS number FROM usage) AS numbered "
        "WHERE usage.instance = numbered.instance AND usage.sequence = numbered.sequence"
    )
    with op.batch_alter_table("usage") as usage:
        usage.alter_column("position", existing_type=sa.BigInteger(), nullable=False)
    op.create_index(op.f("ix_usage_position"), "usage", ["position"], unique=True)
