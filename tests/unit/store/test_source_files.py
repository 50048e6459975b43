"""Uploads: whole and verified, or not there."""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.base.ids import counting_ids
from tramontane.domain.inventory import Item
from tramontane.store.database import parse_url
from tramontane.store.sources import SourceFiles

CONTENT = b"archive"
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def files(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path / "sources", counting_ids(), size_max_bytes=10)


def names(files: SourceFiles) -> list[str]:
    return [each.name for each in files.path(DIGEST).parent.iterdir()]


def test_upload_lands_under_its_digest(files: SourceFiles) -> None:
    with files.begin(DIGEST) as upload:
        upload.write(CONTENT[:3])
        upload.write(CONTENT[3:])
        path = upload.finish()
    assert path == files.path(DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert names(files) == [path.name]


@pytest.mark.parametrize("content", [b"other", b"x" * 11])
def test_wrong_or_too_large_upload_leaves_nothing(files: SourceFiles, content: bytes) -> None:
    with pytest.raises(InvalidRequest):
        receive(files, content)
    assert names(files) == []


def receive(files: SourceFiles, content: bytes) -> None:
    with files.begin(DIGEST) as upload:
        upload.write(content)
        upload.finish()


def test_what_a_crash_left_is_removed(files: SourceFiles) -> None:
    files.begin(DIGEST)._file.close()
    assert len(names(files)) == 1
    files.remove_partial()
    assert names(files) == []


@pytest.mark.parametrize("url", ["", "mysql://a", "nonsense", "sqlite://"])
def test_database_url_is_checked(url: str) -> None:
    with pytest.raises((InvalidRequest, Unsupported)):
        parse_url(url)


def place(files: SourceFiles, used_at: float = 0.0) -> Item:
    receive(files, CONTENT)
    assert files.mark_used(DIGEST, used_at)
    (item,) = files.list_items()
    return item


def yes() -> bool:
    return True


def test_an_archive_is_listed_and_removed(files: SourceFiles) -> None:
    assert files.list_items() == []
    assert not files.mark_used(DIGEST, 7.0)
    item = place(files, 7.0)
    assert (item.name, item.size_bytes, item.used_at) == (DIGEST, len(CONTENT), 7.0)
    assert not files.remove(item, lambda: False)
    assert files.remove(item, yes)
    assert names(files) == []
    assert not files.remove(item, yes)


def test_an_archive_that_somebody_was_promised_is_not_removed(files: SourceFiles) -> None:
    item = place(files)
    assert files.mark_used(DIGEST, 1000.0)
    assert not files.remove(item, yes)
    assert files.path(DIGEST).exists()


def test_an_archive_that_was_uploaded_again_is_not_removed(files: SourceFiles) -> None:
    item = place(files)
    receive(files, CONTENT)
    assert not files.remove(item, yes)


def test_an_archive_that_is_read_is_not_removed(files: SourceFiles) -> None:
    item = place(files)
    with files.hold(DIGEST) as path, files.hold(DIGEST):
        assert not files.remove(item, yes)
        assert path.read_bytes() == CONTENT
    assert files.remove(item, yes)


def test_an_upload_of_the_same_takes_the_place_after_a_removal(files: SourceFiles) -> None:
    item = place(files)
    with files.begin(DIGEST) as upload:
        upload.write(CONTENT)
        with ThreadPoolExecutor(1) as pool:
            placing: list[Future[Path]] = []

            def let_go() -> bool:
                placing.append(pool.submit(upload.finish))
                return True

            assert files.remove(item, let_go)
            assert placing[0].result().read_bytes() == CONTENT
    assert files.path(DIGEST).exists()
