"""The weights on this machine: files by their content, models as lists of files.

    <root>/blobs/<sha256>           a whole file, verified; never changed
    <root>/models/<digest>/         model.json: names, sizes and contents of a model's files
                                    files/: the same as links to blobs, for whoever reads files
    <root>/references/<name>.json   a pinned reference and the model that it led to
    <root>/contents/<identity>      the sha256 of a file whose source does not know it
    <root>/partial/<identity>/      a file on its way (``weights.partial``)

Each thing is there as a whole or not at all, and comes after what it names: a blob before its
model, a model before its reference. They go in the opposite order, so a crash at any point leaves
at worst something that nothing names, which the next search for room finds. Two models that share
a file share the blob. Everything blocks; asyncio code calls it in a thread.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tramontane.base.files import sync_directory, write_private
from tramontane.domain.weights import Algorithm, Model, RemoteFile, StoredFile
from tramontane.plan.weights import Holding

BLOB = "blob:"
PARTIAL = "partial:"
MODEL_FILE = "model.json"


@dataclass(frozen=True, kw_only=True)
class CachedModel:
    """A model whose files are all here."""

    model: Model
    references: tuple[str, ...]
    """Those that led to it, oldest first; none if it was just being removed."""
    fetched_at: float
    used_at: float


class Cache:
    """The folders of one platform's weights."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.models = root / "models"
        self.references = root / "references"
        self.contents = root / "contents"
        self.partial = root / "partial"

    def ensure_folders(self) -> None:
        """Make the folders that are not there yet."""
        for path in (self.blobs, self.models, self.references, self.contents, self.partial):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self.models.glob(".new.*"):
            shutil.rmtree(left, ignore_errors=True)

    # --- models --------------------------------------------------------------------------------

    def find(self, reference: str) -> Model | None:
        """Return the model of a pinned reference, if all its files are here."""
        found = _read_json(self._reference_path(reference))
        model = None if found is None else self._read_model(found["digest"])
        return model if model is not None and self._is_whole(model) else None

    def publish(self, reference: str, model: Model, now: float) -> None:
        """Note that a pinned reference leads to a model, whose blobs are all here."""
        assert self._is_whole(model), f"{reference}: a file is missing"
        self._write_model(model)
        self.mark_used([model.digest], now)
        noted = {"reference": reference, "digest": model.digest, "fetched_at": now}
        write_private(self._reference_path(reference), json.dumps(noted, indent=1))
        sync_directory(self.references)

    def folder(self, model: Model) -> Path:
        """Return where a model's files can be read by their names."""
        return self._model_path(model.digest).with_name("files")

    def mark_used(self, digests: Iterable[str], now: float) -> None:
        """Note that these models are of use now, so that others go first."""
        for digest in digests:
            with suppress(FileNotFoundError):
                os.utime(self._model_path(digest), (now, now))

    def list_models(self) -> list[CachedModel]:
        """Return the models that are whole, the most recently used first."""
        references = defaultdict[str, list[dict[str, Any]]](list)
        for path in self.references.iterdir():
            if (found := _read_json(path)) is not None:
                references[found["digest"]].append(found)
        models: list[CachedModel] = []
        for digest, model, used_at in self._read_models():
            if not self._is_whole(model):
                continue
            known = sorted(references[digest], key=lambda each: each["fetched_at"])
            models.append(
                CachedModel(
                    model=model,
                    references=tuple(each["reference"] for each in known),
                    fetched_at=known[0]["fetched_at"] if known else used_at,
                    used_at=used_at,
                )
            )
        return sorted(models, key=lambda each: -each.used_at)

    # --- files ---------------------------------------------------------------------------------

    def blob(self, sha256: str) -> Path:
        """Return where a file of this content is, or would be."""
        return self.blobs / sha256

    def content_of(self, path: Path) -> str:
        """Return the sha256 of a file if it is in the cache, at no cost; else nothing."""
        real = path.resolve()
        return real.name if real.parent == self.blobs.resolve() else ""

    def find_file(self, file: RemoteFile, source: str) -> StoredFile | None:
        """Return the file if its content is here, wherever it came from."""
        if file.checksum is not None and file.checksum.algorithm is Algorithm.SHA256:
            sha256 = file.checksum.value
        else:
            with suppress(FileNotFoundError):
                text = (self.contents / identity_of(file, source)).read_text("ascii")
                return self._stored(file, text.strip())
            return None
        return self._stored(file, sha256)

    def note_content(self, file: RemoteFile, source: str, sha256: str) -> None:
        """Remember what a file turned out to contain, for a source that does not know it."""
        if identity_of(file, source) == sha256:
            return
        write_private(self.contents / identity_of(file, source), f"{sha256}\n")

    def partial_folder(self, file: RemoteFile, source: str) -> Path:
        """Return the folder of this file while it is on its way."""
        return self.partial / identity_of(file, source)

    def missing_bytes(self, files: Iterable[RemoteFile], source: str) -> int:
        """Return how many more bytes the disk must take for these files."""
        missing = {
            identity_of(each, source): each.size_bytes
            for each in files
            if self.find_file(each, source) is None
        }
        here = {key: _disk_size(self.partial / key) for key in missing}
        return sum(max(size - here[key], 0) for key, size in missing.items())

    # --- room ----------------------------------------------------------------------------------

    def free_bytes(self) -> int:
        """Return what the disk has free for an ordinary user."""
        return shutil.disk_usage(self.root).free

    def total_bytes(self) -> int:
        """Return the size of the disk."""
        return shutil.disk_usage(self.root).total

    def holdings(self) -> list[Holding]:
        """Return everything that takes room: models, and what was left on the way to one."""
        holdings: list[Holding] = []
        named: set[str] = set()
        for digest, model, used_at in self._read_models():
            files = frozenset((each.sha256, each.size_bytes) for each in model.files)
            holdings.append(Holding(key=digest, files=files, used_at=used_at))
            named.update(each.sha256 for each in model.files)
        for prefix, folder in ((BLOB, self.blobs), (PARTIAL, self.partial)):
            for path in folder.iterdir():
                if path.name in named:
                    continue
                with suppress(FileNotFoundError):
                    size, used_at = _disk_size(path), _written_at(path)
                    left = frozenset({(path.name, size)})
                    holdings.append(
                        Holding(key=f"{prefix}{path.name}", files=left, used_at=used_at)
                    )
        return holdings

    def keys_of(self, files: Iterable[RemoteFile], source: str) -> set[str]:
        """Return the keys under which ``holdings`` shows files that are being fetched."""
        keys: set[str] = set()
        for each in files:
            keys.add(f"{PARTIAL}{identity_of(each, source)}")
            stored = self.find_file(each, source)
            if stored is not None:
                keys.add(f"{BLOB}{stored.sha256}")
        return keys

    def evict(self, key: str) -> None:
        """Remove what a holding keeps and no other does. Whether it is in use is not asked here."""
        if key.startswith(PARTIAL):
            shutil.rmtree(self.partial / key.removeprefix(PARTIAL), ignore_errors=True)
            return
        if key.startswith(BLOB):
            self.blob(key.removeprefix(BLOB)).unlink(missing_ok=True)
            return
        model = self._read_model(key)
        for path in list(self.references.iterdir()):
            if (found := _read_json(path)) is not None and found["digest"] == key:
                path.unlink(missing_ok=True)
        sync_directory(self.references)
        path = self._model_path(key)
        path.unlink(missing_ok=True)
        shutil.rmtree(path.parent, ignore_errors=True)
        others = {each.sha256 for _, other, _ in self._read_models() for each in other.files}
        for each in model.files if model is not None else ():
            if each.sha256 not in others:
                self.blob(each.sha256).unlink(missing_ok=True)
        self._forget_contents()

    def _forget_contents(self) -> None:
        for path in list(self.contents.iterdir()):
            with suppress(FileNotFoundError):
                if not self.blob(path.read_text("ascii").strip()).exists():
                    path.unlink()

    def _stored(self, file: RemoteFile, sha256: str) -> StoredFile | None:
        stored = StoredFile(name=file.name, size_bytes=file.size_bytes, sha256=sha256)
        return stored if self._is_here(stored) else None

    def _is_here(self, file: StoredFile) -> bool:
        try:
            return self.blob(file.sha256).stat().st_size == file.size_bytes
        except FileNotFoundError:
            return False

    def _is_whole(self, model: Model) -> bool:
        return all(self._is_here(each) for each in model.files)

    def _read_models(self) -> Iterator[tuple[str, Model, float]]:
        for path in list(self.models.glob(f"*/{MODEL_FILE}")):
            with suppress(FileNotFoundError):
                used_at = path.stat().st_mtime
                digest = f"sha256:{path.parent.name}"
                model = self._read_model(digest)
                if model is not None:
                    yield digest, model, used_at

    def _read_model(self, digest: str) -> Model | None:
        found = _read_json(self._model_path(digest))
        if found is None:
            return None
        return Model(files=tuple(StoredFile(**each) for each in found["files"]))

    def _write_model(self, model: Model) -> None:
        final = self._model_path(model.digest)
        if final.exists():
            return
        # Left by an eviction that was killed.
        shutil.rmtree(final.parent, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=".new.", dir=self.models))
        for each in model.files:
            link = fresh / "files" / each.name
            link.parent.mkdir(parents=True, exist_ok=True)
            up = "../" * (len(Path(each.name).parts) + 2)
            link.symlink_to(f"{up}blobs/{each.sha256}")
        text = json.dumps({"files": [asdict(each) for each in model.files]}, indent=1)
        write_private(fresh / MODEL_FILE, text)
        fresh.rename(final.parent)
        sync_directory(self.models)

    def _model_path(self, digest: str) -> Path:
        return self.models / digest.removeprefix("sha256:") / MODEL_FILE

    def _reference_path(self, reference: str) -> Path:
        return self.references / f"{hashlib.sha256(reference.encode()).hexdigest()[:32]}.json"


def identity_of(file: RemoteFile, source: str) -> str:
    """Return what tells a content from every other before it is here, as a file name.

    Where the source knows the sha256 it is that, and the same wherever the file comes from. Weaker
    checksums are trusted within one source only.
    """
    if file.checksum is not None and file.checksum.algorithm is Algorithm.SHA256:
        return file.checksum.value
    told = [source, file.location, file.size_bytes, str(file.checksum or ""), file.version]
    return f"other-{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"


def _disk_size(path: Path) -> int:
    """Return the bytes that a file or a folder of files takes on the disk."""
    try:
        if not path.is_dir():
            return path.stat().st_blocks * 512
        return sum(each.stat().st_blocks * 512 for each in path.iterdir())
    except FileNotFoundError:
        return 0


def _written_at(path: Path) -> float:
    """Return when a file, or a file of a folder, was written last."""
    inside = list(path.iterdir()) if path.is_dir() else []
    return max(each.stat().st_mtime for each in (path, *inside))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
