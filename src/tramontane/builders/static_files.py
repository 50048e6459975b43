"""Make the folder that the static file server runs from; needs no network.

``toolchains.find_static`` calls it. The server and what it imports are copied from the platform's
own installed packages, so that a sandbox sees these few and not the platform.
"""

import asyncio
import compileall
import py_compile
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tramontane.builders import static_server
from tramontane.builders.store import Store, digest_of

SERVER = Path(static_server.__file__)
NEEDED = ("starlette", "uvicorn", "uvloop")


async def copy_static_server(store: Store) -> Path:
    """Return the folder, made at the first call; a new version of any part gets a new folder."""
    packages, final = await asyncio.to_thread(_plan, store)
    if not final.is_dir():
        async with store.lock(final.name):
            if not final.is_dir():
                staged = store.make_staging(final.name)
                await asyncio.to_thread(_copy, packages, staged)
                store.publish(staged, final)
    return final


def _plan(store: Store) -> tuple[tuple[str, ...], Path]:
    versions = {name: metadata.version(name) for name in sorted(closure(NEEDED))}
    key = digest_of(versions, SERVER.read_text("utf-8"))[:16]
    return tuple(versions), store.toolchains / f"static-{key}"


def closure(names: tuple[str, ...]) -> set[str]:
    """Return distributions with all that they require, leaving out optional extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found and _is_installed(name):
            found.add(name)
            waiting.extend(_required(name))
    return found


def _required(name: str) -> Iterator[str]:
    for line in metadata.requires(name) or ():
        match = re.match(r"[\w.-]+", line)
        if match is not None and "extra ==" not in line:
            yield match.group().lower().replace("_", "-")


def _is_installed(name: str) -> bool:
    # What a marker rules out on this machine (another system, an older Python) is not there.
    return any(True for _ in metadata.distributions(name=name))


def _copy(packages: tuple[str, ...], target: Path) -> None:
    for package in packages:
        for file in metadata.files(package) or ():
            source = Path(str(file.locate()))
            if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
                continue
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target / file)
    shutil.copyfile(SERVER, target / SERVER.name)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(target, quiet=2, invalidation_mode=mode)
