"""No archive writes outside its folder, or leaves something behind after it was refused."""

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.base.errors import InvalidRequest
from tramontane.builders.unpack import ArchiveLimits, unpack

TYPES = [
    *(tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE),
    *(tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE),
]
Entry = tuple[bytes, str, str, bytes]


def write_archive(path: Path, entries: list[Entry]) -> None:
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for kind, name, link, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = len(content) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(content))


parts = st.sampled_from(["a", "b", "c", "..", ".", "", "/", "outside", "\udcff", "a\0b", "x" * 300])
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
entries = st.lists(
    st.tuples(st.sampled_from(TYPES), names, names, st.binary(max_size=8)), max_size=8
)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


@settings(max_examples=400, deadline=None)
@given(entries)
def test_hostile_entries_never_write_outside(hostile: list[Entry]) -> None:
    with tempfile.TemporaryDirectory() as top:
        base = Path(top)
        (base / "outside").mkdir()
        (base / "outside" / "kept").write_bytes(b"kept")
        archive, target = base / "in.tgz", base / "sub" / "target"
        target.parent.mkdir()
        write_archive(archive, hostile)
        before = archive.read_bytes()
        try:
            unpack(archive, target)
        except InvalidRequest:
            assert not target.exists()
        else:
            for path in target.rglob("*"):
                assert Path(os.path.realpath(path)).is_relative_to(target.resolve())
        assert {path.name for path in base.iterdir()} == {"in.tgz", "outside", "sub"}
        assert set((base / "sub").iterdir()) <= {target}
        assert contents(base / "outside") == {"kept": b"kept"}
        assert archive.read_bytes() == before


REFUSED: list[tuple[list[Entry], str]] = [
    ([(tarfile.REGTYPE, "/etc/x", "", b"")], "'/etc/x': its name is absolute"),
    ([(tarfile.REGTYPE, "a/../../x", "", b"")], "climbs"),
    ([(tarfile.SYMTYPE, "a", "/etc", b"")], "may lead outside"),
    ([(tarfile.SYMTYPE, "a", "../x", b"")], "may lead outside"),
    ([(tarfile.SYMTYPE, "d/l", "..", b""), (tarfile.SYMTYPE, "x", "d/l/..", b"")], "lead outside"),
    ([(tarfile.SYMTYPE, "a", ".", b""), (tarfile.SYMTYPE, "a/b", "../c", b"")], "outside|below"),
    ([(tarfile.SYMTYPE, "a", "b", b""), (tarfile.REGTYPE, "a/x", "", b"")], "below a link"),
    ([(tarfile.LNKTYPE, "a", "b", b"")], "no file, folder or link"),
    ([(tarfile.CHRTYPE, "a", "", b"")], "no file, folder or link"),
    ([(tarfile.FIFOTYPE, "a", "", b"")], "no file, folder or link"),
    ([(tarfile.REGTYPE, "a", "", b"1"), (tarfile.REGTYPE, "./a", "", b"2")], "occurs twice"),
    ([(tarfile.REGTYPE, "a", "", b""), (tarfile.REGTYPE, "a/b", "", b"")], "'a/b'"),
    ([(tarfile.REGTYPE, "\udcff", "", b"")], "not valid UTF-8"),
]


@pytest.mark.parametrize(("hostile", "message"), REFUSED)
def test_a_refusal_names_the_entry(tmp_path: Path, hostile: list[Entry], message: str) -> None:
    write_archive(tmp_path / "in.tgz", hostile)
    with pytest.raises(InvalidRequest, match=message):
        unpack(tmp_path / "in.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_is_written_in_its_one_form(tmp_path: Path) -> None:
    write_archive(tmp_path / "in.tgz", [(tarfile.SYMTYPE, "b", "b//", b"")])
    unpack(tmp_path / "in.tgz", tmp_path / "out")
    assert (tmp_path / "out" / "b").readlink() == Path("b")


def test_limits_hold(tmp_path: Path) -> None:
    archive = tmp_path / "in.tgz"
    write_archive(archive, [(tarfile.REGTYPE, f"f{i}", "", b"12345") for i in range(10)])
    with pytest.raises(InvalidRequest, match="more than 9 entries"):
        unpack(archive, tmp_path / "out", ArchiveLimits(files_max=9))
    with pytest.raises(InvalidRequest, match="more than 49 bytes"):
        unpack(archive, tmp_path / "out", ArchiveLimits(bytes_max=49))
    assert unpack(archive, tmp_path / "out", ArchiveLimits(files_max=10, bytes_max=50)) == 10


def test_a_bomb_of_headers_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tgz", "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a")
        member.pax_headers = {"comment": "x" * 3 * 1024**2}
        archive.addfile(member)
    with pytest.raises(InvalidRequest, match="too large"):
        unpack(tmp_path / "in.tgz", tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"no gzip", gzip.compress(b"no tar" * 200)])
def test_what_is_no_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.tgz").write_bytes(data)
    with pytest.raises(InvalidRequest, match="no readable"):
        unpack(tmp_path / "in.tgz", tmp_path / "out")


@pytest.mark.parametrize("missing", [40, 1])
def test_a_truncated_archive_is_refused(tmp_path: Path, missing: int) -> None:
    archive = tmp_path / "in.tgz"
    write_archive(archive, [(tarfile.REGTYPE, "a", "", bytes(range(256)) * 64)])
    archive.write_bytes(archive.read_bytes()[:-missing])
    with pytest.raises(InvalidRequest):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
