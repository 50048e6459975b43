"""Cells as last reported: reconcilers write them, placement and the API read them."""

from sqlalchemy import Connection, delete, select

from tramontane.base.errors import NotFound
from tramontane.domain.cell import Capacity, Cell
from tramontane.domain.ids import CellId
from tramontane.store.part import Part, suggest
from tramontane.store.rows import cell_from_row, cell_to_row
from tramontane.store.tables import CELLS


def read_capacities(connection: Connection) -> dict[CellId, Capacity]:
    """Return what each cell has for instances."""
    rows = connection.execute(select(CELLS)).mappings()
    return {cell.id: cell.capacity for cell in map(cell_from_row, rows)}


class Cells(Part):
    """What is known of the places where instances run."""

    def upsert_cell(self, cell: Cell) -> None:
        """Write everything that is known of a cell, its facts included."""
        row = cell_to_row(cell)
        new = {name: value for name, value in row.items() if name != "id"}
        with self._database.observe() as connection:
            connection.execute(
                self._database.insert(CELLS)
                .values(row)
                .on_conflict_do_update(index_elements=[CELLS.c.id], set_=new)
            )

    def list_cells(self) -> list[Cell]:
        """Return every cell, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(CELLS).order_by(CELLS.c.name)).mappings()
            return [cell_from_row(row) for row in rows]

    def read_cell(self, name: str) -> Cell:
        """Return the cell of this name; raises ``NotFound``."""
        cells = {cell.name: cell for cell in self.list_cells()}
        if name not in cells:
            raise NotFound(f"no cell is named {name}{suggest(name, cells)}")
        return cells[name]

    def remove_cell(self, cell_id: CellId) -> None:
        """Forget a cell."""
        with self._database.observe() as connection:
            connection.execute(delete(CELLS).where(CELLS.c.id == cell_id))
