"""Tokens: who may call the API, and the models behind the gateway."""

from dataclasses import dataclass
from enum import IntEnum

from tramontane.domain.limits import Limits


class Scope(IntEnum):
    """What a token allows; each scope includes those below it."""

    INFERENCE = 1
    """Call the project's models at the gateway; nothing of the API."""
    READ = 2
    DEPLOY = 3
    ADMIN = 4
    """Everything, in every project, tokens included."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """What the platform keeps of a token: everything but the token."""

    id: str
    """The ``jti`` of the signed token (RFC 7519)."""
    name: str
    project: str | None
    """None: every project."""
    scope: Scope
    token_hash: str
    """SHA-256 of the token's text, in hex."""
    created_at: float
    expires_at: float | None = None
    revoked: bool = False
    models: tuple[str, ...] | None = None
    """Names of the only models and aliases that it may call; None: every one of the project."""
    limits: Limits | None = None
    """How much of them; None: as much as it likes."""
