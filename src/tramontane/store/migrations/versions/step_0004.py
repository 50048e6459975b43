"""Keep a ledger of what inference requests used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the ledger, and how far each instance's book has been read into it."""
    op.create_table(
        "usage",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("service", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("cell", sa.Text(), nullable=False),
        sa.Column("api", sa.Text(), nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("first_token_s", sa.Double),
        sa.Column("duration_s", sa.Double, nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("end", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance", "sequence", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_request_id"), "usage", ["request_id"])
    op.create_index(op.f("ix_usage_at"), "usage", ["at"])
    op.create_index(op.f("ix_usage_project_usage_at"), "usage", ["project", "at"])
    op.create_table(
        "books",
        sa.Column("instance", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("instance", name=op.f("pk_books")),
    )
