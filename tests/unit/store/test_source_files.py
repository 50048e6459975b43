"""Uploads: whole and verified, or not there."""

import hashlib
from pathlib import Path

import pytest

from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.base.ids import counting_ids
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
