"""The tables, as SQLAlchemy Core knows them: every statement of the store is built from these.

A new database is made of them as they are, an older one is brought there by ``migrations``; a test
holds the two against each other.
Column names equal the field names of the domain's dataclasses, so a row is a value with its enums
and JSON still to be read (``store.rows``). JSON is kept as text: nothing here is searched inside.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

PROJECTS = Table(
    "projects",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("policy", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)

SERVICES = Table(
    "services",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.name"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("desired_deployment", Text),
    Column("desired_instances", Integer),
    Column("sleep_requested", Boolean, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("serving_deployment", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("route_generation", BigInteger, nullable=False),
    Column("wake_failures", Integer, nullable=False),
    Column("retry_at", Double),
    UniqueConstraint("project", "name"),
)

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("definition", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("artifact", Text),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("start_failures", Integer, nullable=False),
    # A superseded deployment keeps this, so that a rollback finds the last one that worked.
    Column("was_healthy", Boolean, nullable=False),
    # What the JSON above names, where garbage collection can ask for it.
    Column("source_digest", Text, index=True),
    Column("artifact_digest", Text, index=True),
    UniqueConstraint("service_id", "number"),
)

INSTANCES = Table(
    "instances",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("deployment_id", Text, nullable=False),
    Column("cell_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("pid", BigInteger),
    Column("endpoint", Text),
    Column("started_at", Double),
    Column("ready_at", Double),
    Column("draining_since", Double),
    Column("drain_until", Double),
    Column("ended_at", Double),
    Index(None, "service_id", "status"),
)

EVENTS = Table(
    "events",
    METADATA,
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("at", Double, nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("message", Text, nullable=False),
    Index(None, "service_id", "id"),
)

ALIASES = Table(
    "aliases",
    METADATA,
    Column("project", Text, ForeignKey("projects.name"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("definition", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

CELLS = Table(
    "cells",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("runtime", Text, nullable=False),
    Column("isolation", Text, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("cpus", Double, nullable=False),
    Column("facts", Text, nullable=False),
    Column("reachable", Boolean, nullable=False),
)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("project", Text),
    Column("scope", Integer, nullable=False),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked", Boolean, nullable=False),
    Column("last_used_at", Double),
    Column("models", Text),
    Column("limits", Text),
)

REQUESTS = Table(
    "requests",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
)

SOURCES = Table(
    "sources",
    METADATA,
    Column("digest", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
)

FILES = Table(
    "files",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.name", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("lines", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, index=True),
    Index(None, "project", "created_at", "id"),
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("project", Text, ForeignKey("projects.name", ondelete="CASCADE"), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text),
    Column("named", Boolean, nullable=False),
    Column("input_files", Text, nullable=False),
    Column("output_file", Text, nullable=False),
    Column("error_file", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("window_hours", Integer, nullable=False),
    Column("results_kept_s", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("status", Text, nullable=False, index=True),
    Column("moments", Text, nullable=False),
    Column("errors", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("succeeded", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Index(None, "project", "created_at", "id"),
)

SETTINGS = Table(
    "settings",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

USAGE = Table(
    "usage",
    METADATA,
    Column("instance", Text, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("request_id", Text, nullable=False, index=True),
    Column("key", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("service", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("cell", Text, nullable=False),
    Column("api", Text, nullable=False),
    Column("at", Double, nullable=False, index=True),
    Column("first_token_s", Double),
    Column("duration_s", Double, nullable=False),
    Column("status", Integer, nullable=False),
    Column("end", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    # In the order of coming, without gaps: who has read up to one has missed none before it.
    Column("position", BigInteger, nullable=False),
    Column("traceparent", Text),
    Index(None, "project", "at"),
    Index(None, "position", unique=True),
)

USAGE_TOTALS = Table(
    "usage_totals",
    METADATA,
    Column("project", Text, primary_key=True),
    Column("service", Text, primary_key=True),
    Column("totals", Text, nullable=False),
)

BOOKS = Table(
    "books",
    METADATA,
    Column("instance", Text, primary_key=True),
    # How far the instance's book has been read.
    Column("position", BigInteger, nullable=False),
    # Nothing will be added: its files may go.
    Column("closed", Boolean, nullable=False),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at", Double, nullable=False),
)
