"""Equal content packs to an equal digest; what a build does not need stays at home."""

import os
import tarfile
from pathlib import Path

import pytest

from tramontane.base.errors import InvalidRequest
from tramontane.builders.unpack import unpack
from tramontane.wire.archive import is_ignored, pack, parse_rule


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def packed_names(tmp_path: Path, folder: Path) -> list[str]:
    pack(folder, tmp_path / "out.tgz")
    with tarfile.open(tmp_path / "out.tgz") as archive:
        return archive.getnames()


def test_content_alone_decides_the_digest(tmp_path: Path) -> None:
    one = write(tmp_path / "one", {"b": "2", "a/c": "1"})
    two = write(tmp_path / "two", {"a/c": "1", "b": "2"})
    os.utime(two / "b", (1, 1))
    (two / "b").chmod(0o600)
    first = pack(one, tmp_path / "1.tgz")
    assert first == pack(two, tmp_path / "2.tgz")
    (two / "b").write_text("3")
    assert first.digest != pack(two, tmp_path / "2.tgz").digest


def test_what_packs_unpacks(tmp_path: Path) -> None:
    folder = write(tmp_path / "in", {"a/run": "#!/bin/sh", "b": "ü"})
    (folder / "a" / "run").chmod(0o755)
    (folder / "a" / "link").symlink_to("../b")
    pack(folder, tmp_path / "x.tgz")
    unpack(tmp_path / "x.tgz", tmp_path / "out")
    assert (tmp_path / "out/a/link").read_text() == "ü"
    assert os.access(tmp_path / "out/a/run", os.X_OK)


def test_folders_of_tools_stay_at_home(tmp_path: Path) -> None:
    files = dict.fromkeys(
        [".git/x", ".venv/x", "node_modules/x", "a/__pycache__/x", "target/x", "a/target/kept"], ""
    )
    folder = write(tmp_path / "in", {**files, "Cargo.toml": "", "kept": ""})
    assert packed_names(tmp_path, folder) == ["Cargo.toml", "a/target/kept", "kept"]


def test_ignore_files_are_honoured(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "in",
        {".gitignore": "*.log\n/data\n.env\n", ".tramignore": "docs/\n!kept.log\n"}
        | dict.fromkeys(["a.log", "kept.log", "data/x", "sub/data/x", "docs/x", ".env"], ""),
    )
    assert packed_names(tmp_path, folder) == [".gitignore", "kept.log", "sub/data/x"]


@pytest.mark.parametrize(
    ("pattern", "name", "ignored"),
    [
        ("*.log", "a/b.log", True),
        ("/a", "b/a", False),
        ("a/b", "x/a/b", False),
        ("**/b", "x/y/b", True),
        ("a/**", "a/b/c", True),
        ("a/**/c", "a/c", True),
        ("a?c", "a/c", False),
        ("[!a]x", "bx", True),
        ("[!a]x", "ax", False),
    ],
)
def test_patterns_read_as_git_reads_them(pattern: str, name: str, ignored: bool) -> None:
    assert is_ignored(name, folder=False, rules=[parse_rule(pattern)]) is ignored


def test_refusals_name_the_thing_and_leave_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InvalidRequest, match="no files"):
        pack(folder, tmp_path / "x.tgz")
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidRequest, match=r"'link'.* outside"):
        pack(folder, tmp_path / "x.tgz")
    (folder / "link").unlink()
    (folder / "big").write_bytes(os.urandom(200_000))
    with pytest.raises(InvalidRequest, match="exceeds"):
        pack(folder, tmp_path / "x.tgz", bytes_max=100_000)
    with pytest.raises(InvalidRequest, match="not a directory"):
        pack(folder / "big", tmp_path / "x.tgz")
    assert not (tmp_path / "x.tgz").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("shut", ["folder", "file"])
def test_what_may_not_be_read_is_named(tmp_path: Path, shut: str) -> None:
    (tmp_path / "in" / "folder").mkdir(parents=True)
    (tmp_path / "in" / "file").touch()
    (tmp_path / "in" / shut).chmod(0)
    with pytest.raises(InvalidRequest, match=f"cannot read .*/in/{shut}: ") as caught:
        pack(tmp_path / "in", tmp_path / "x.tgz")
    assert caught.value.next_step == "make it readable, or name it in .tramignore"
    (tmp_path / "in" / shut).chmod(0o700)
