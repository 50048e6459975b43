"""Weights that are on the platform's machine already: used where they lie, never copied.

Whoever put a file there may change it. Its state, which a deployment records, is made of names,
sizes and times of change, since reading tens of gigabytes on each deployment is no option;
``check_unchanged`` compares it again at no cost before an instance starts.
"""

import os
from pathlib import Path

from tramontane.base.errors import InvalidRequest
from tramontane.domain.reference import SPLIT_FILE, FileReference
from tramontane.domain.weights import RemoteFile, make_state
from tramontane.plan.weights import choose_files

FILES_MAX = 10_000


def pin_file(reference: FileReference) -> FileReference:
    """Return the reference with the state of its files now."""
    return FileReference(path=reference.path, state=make_state(list_local_files(reference)))


def list_local_files(reference: FileReference) -> tuple[RemoteFile, ...]:
    """Return the files of the model; ``location`` is where each lies."""
    path = Path(reference.path)
    shown = str(FileReference(path=reference.path))
    split = SPLIT_FILE.match(path.name)
    root = path.parent if split else path
    try:
        files = [_describe(each, root) for each in (_walk(root) if root.is_dir() else [root])]
    except OSError as error:
        raise InvalidRequest(
            f"cannot read the model {shown}: {error.strerror}; give 'tiny', the absolute path of "
            "a file or directory on the platform's machine, or hf://, s3:// or oci://",
            path="source.model",
        ) from error
    if root.is_file():
        return tuple(files)
    return choose_files(files, path.name if split else "", shown)


def check_unchanged(reference: FileReference) -> None:
    """Raise ``InvalidRequest`` if the files are not those that were deployed."""
    if reference.state and pin_file(reference) != reference:
        raise InvalidRequest(
            f"the model {reference.path} has changed since it was deployed; deploy it again",
            path="source.model",
        )


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        found += [Path(place) / name for name in sorted(names)]
        if len(found) > FILES_MAX:
            raise InvalidRequest(
                f"{folder} holds more than {FILES_MAX} files: name the folder of one model",
                path="source.model",
            )
    return found


def _describe(path: Path, root: Path) -> RemoteFile:
    found = path.stat()
    return RemoteFile(
        name=path.name if path == root else path.relative_to(root).as_posix(),
        size_bytes=found.st_size,
        location=str(path.resolve()),
        version=f"{found.st_mtime_ns}",
    )
