"""What goes of the files on disk, and what stays whoever uploads meanwhile."""

import os
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.domain.files import ProjectFile
from tramontane.reconcile.files import PLACED_S, FileReconciler
from tramontane.store.contents import FileContents
from tramontane.store.store import open_store
from tramontane.testing.clocks import FakeClock


def test_only_what_nobody_can_ask_for_goes(tmp_path: Path) -> None:
    store, clock = open_store(tmp_path / "db"), FakeClock()
    contents = FileContents(tmp_path / "files")
    now = clock.now()

    def put(file_id: str, *, written_at: float, known: bool, expires_at: float | None) -> None:
        too_large = InvalidRequest("too large")
        with contents.begin(file_id, bytes_max=10, too_large=too_large) as incoming:
            incoming.write(b"{}\n")
            incoming.finish()
        os.utime(contents.path(file_id), (written_at, written_at))
        if known:
            file = ProjectFile(
                id=file_id,
                project="shop",
                name="in.jsonl",
                purpose="batch",
                size_bytes=3,
                lines=1,
                digest="sha256:0",
                created_at=now,
                expires_at=expires_at,
            )
            assert store.add_file(file)

    old, young = now - PLACED_S, now - PLACED_S + 1
    put("file_kept", written_at=old, known=True, expires_at=None)
    put("file_valid", written_at=old, known=True, expires_at=now + 1)
    put("file_expired", written_at=old, known=True, expires_at=now)
    put("file_unknown", written_at=old, known=False, expires_at=None)
    put("file_placed", written_at=young, known=False, expires_at=None)
    FileReconciler(store=store, contents=contents, clock=clock).reconcile()
    left = sorted(each.name for each in (tmp_path / "files").iterdir())
    assert left == ["file_kept", "file_placed", "file_valid"]
    store.close()
