"""Tokens at rest: everything but the token itself, of which only the hash is kept."""

from dataclasses import dataclass

from sqlalchemy import insert, select, update

from tramontane.base.errors import Conflict, NotFound
from tramontane.domain.limits import Limits
from tramontane.domain.token import Token
from tramontane.store.part import Part
from tramontane.store.requests import RequestKey, find_result, remember_result
from tramontane.store.rows import LIMITS, NAMES, to_json, token_from_row
from tramontane.store.tables import TOKENS


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """A token and when it was last used, to within a few minutes."""

    token: Token
    last_used_at: float | None


class Tokens(Part):
    """What can be done with tokens; revoked ones stay listed, to explain refusals."""

    def add_token(self, token: Token, *, request: RequestKey | None = None) -> None:
        """Keep a new token.

        Raises ``Conflict`` if the same request made one before: its text cannot be shown again.
        """
        with self._database.write() as connection:
            if find_result(connection, request, token.created_at) is not None:
                raise Conflict(
                    "this request has already made a token, which is shown only once; "
                    "revoke that one and make another with a fresh Idempotency-Key"
                )
            connection.execute(
                insert(TOKENS).values(
                    id=token.id,
                    name=token.name,
                    project=token.project,
                    scope=token.scope.value,
                    token_hash=token.token_hash,
                    created_at=token.created_at,
                    expires_at=token.expires_at,
                    revoked=token.revoked,
                    models=None if token.models is None else to_json(NAMES, token.models),
                    limits=None if token.limits is None else to_json(LIMITS, token.limits),
                )
            )
            remember_result(connection, request, token.id, token.created_at)

    def find_token(self, token_hash: str) -> TokenRecord | None:
        """Return the token with this hash, revoked or not."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(TOKENS).where(TOKENS.c.token_hash == token_hash))
                .mappings()
                .first()
            )
        if row is None:
            return None
        return TokenRecord(token=token_from_row(row), last_used_at=row["last_used_at"])

    def read_token(self, token_id: str) -> Token | None:
        """Return the token with this id, revoked or not."""
        with self._database.read() as connection:
            row = (
                connection.execute(select(TOKENS).where(TOKENS.c.id == token_id)).mappings().first()
            )
        return None if row is None else token_from_row(row)

    def list_tokens(self, project: str | None = None) -> list[TokenRecord]:
        """Return every token, or those of one project, oldest first."""
        statement = select(TOKENS).order_by(TOKENS.c.created_at, TOKENS.c.id)
        if project is not None:
            statement = statement.where(TOKENS.c.project == project)
        with self._database.read() as connection:
            return [
                TokenRecord(token=token_from_row(row), last_used_at=row["last_used_at"])
                for row in connection.execute(statement).mappings()
            ]

    def revoke_token(self, token_id: str, *, project: str | None = None) -> Token:
        """Refuse a token from now on; ``project`` limits which can be found. Repeating is fine."""
        statement = update(TOKENS).where(TOKENS.c.id == token_id)
        if project is not None:
            statement = statement.where(TOKENS.c.project == project)
        with self._database.write() as connection:
            row = (
                connection.execute(statement.values(revoked=True).returning(TOKENS))
                .mappings()
                .first()
            )
        if row is None:
            raise NotFound(f"there is no token {token_id}; list them with: tram tokens list")
        return token_from_row(row)

    def limit_token(
        self, token_id: str, limits: Limits | None, *, project: str | None = None
    ) -> TokenRecord:
        """Change how much a token may use; ``project`` limits which can be found."""
        statement = update(TOKENS).where(TOKENS.c.id == token_id)
        if project is not None:
            statement = statement.where(TOKENS.c.project == project)
        value = None if limits is None else to_json(LIMITS, limits)
        with self._database.write() as connection:
            row = (
                connection.execute(statement.values(limits=value).returning(TOKENS))
                .mappings()
                .first()
            )
        if row is None:
            raise NotFound(f"there is no token {token_id}; list them with: tram tokens list")
        return TokenRecord(token=token_from_row(row), last_used_at=row["last_used_at"])

    def list_limits(self) -> dict[str, Limits]:
        """Return how much each token may use that is good and has limits."""
        statement = select(TOKENS.c.id, TOKENS.c.limits).where(
            TOKENS.c.limits.is_not(None), TOKENS.c.revoked.is_(False)
        )
        with self._database.read() as connection:
            rows = connection.execute(statement).all()
        return {row.id: LIMITS.validate_json(row.limits) for row in rows}

    def list_revoked_ids(self) -> frozenset[str]:
        """Return the ids of all revoked tokens, which the gateway has to refuse."""
        with self._database.read() as connection:
            ids = connection.execute(select(TOKENS.c.id).where(TOKENS.c.revoked)).scalars()
            return frozenset(ids)

    def touch_token(self, token_id: str, now: float) -> None:
        """Note that a token was used."""
        with self._database.observe() as connection:
            connection.execute(
                update(TOKENS).where(TOKENS.c.id == token_id).values(last_used_at=now)
            )
