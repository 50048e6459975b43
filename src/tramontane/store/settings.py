"""Facts about the platform as a whole, by name: each is one short text."""

from sqlalchemy import select

from tramontane.store.part import Part
from tramontane.store.tables import SETTINGS


class Settings(Part):
    """A small key-value store; names are constants of whoever uses them."""

    def read_setting(self, name: str) -> str | None:
        """Return the value, or None if it was never written."""
        with self._database.read() as connection:
            statement = select(SETTINGS.c.value).where(SETTINGS.c.name == name)
            return connection.execute(statement).scalar()

    def write_setting(self, name: str, value: str) -> None:
        """Keep the value, durably."""
        with self._database.write() as connection:
            connection.execute(
                self._database.insert(SETTINGS)
                .values(name=name, value=value)
                .on_conflict_do_update(index_elements=[SETTINGS.c.name], set_={"value": value})
            )
