"""Leases: which of several replicas does a job that only one may do.

``now`` comes from the caller's clock, so the clocks of replicas must agree better than ``ttl_s``;
what a lease guards is guarded by generations as well, so two holders for a moment do no harm.
"""

from sqlalchemy import delete, select, update

from tramontane.store.part import Part
from tramontane.store.tables import LEASES


class Leases(Part):
    """Ownership by name, with an end."""

    def acquire_lease(self, name: str, holder: str, *, ttl_s: float, now: float) -> bool:
        """Take the lease if it is free, expired or already ``holder``'s; return whether it is."""
        row = {"name": name, "holder": holder, "expires_at": now + ttl_s}
        with self._database.write() as connection:
            result = connection.execute(
                self._database.insert(LEASES)
                .values(row)
                .on_conflict_do_update(
                    index_elements=[LEASES.c.name],
                    set_={"holder": holder, "expires_at": now + ttl_s},
                    where=(LEASES.c.holder == holder) | (LEASES.c.expires_at <= now),
                )
                .returning(LEASES.c.name)
            )
            return result.first() is not None

    def renew_lease(self, name: str, holder: str, *, ttl_s: float, now: float) -> bool:
        """Prolong a lease that ``holder`` still has; False means it was lost."""
        with self._database.write() as connection:
            result = connection.execute(
                update(LEASES)
                .where(LEASES.c.name == name, LEASES.c.holder == holder, LEASES.c.expires_at > now)
                .values(expires_at=now + ttl_s)
            )
            return result.rowcount == 1

    def release_lease(self, name: str, holder: str) -> None:
        """Give the lease back at once, if ``holder`` has it."""
        with self._database.write() as connection:
            connection.execute(
                delete(LEASES).where(LEASES.c.name == name, LEASES.c.holder == holder)
            )

    def read_lease_holder(self, name: str, *, now: float) -> str | None:
        """Return who has the lease, if anybody."""
        with self._database.read() as connection:
            statement = select(LEASES.c.holder).where(
                LEASES.c.name == name, LEASES.c.expires_at > now
            )
            return connection.execute(statement).scalar()
