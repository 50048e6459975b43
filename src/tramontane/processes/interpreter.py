"""Finds this installation's Python, as instances will see it: mounted read-only at its own path."""

import importlib.util
import sys
from pathlib import Path

from tramontane.domain.artifact import Mount
from tramontane.engines.llamacpp import EngineFiles

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/sbin")
"""What every sandbox shows anyway (``runtimes.process``)."""


def find_interpreter() -> tuple[str, tuple[Mount, ...]]:
    """Return the real interpreter's path, and the mount that makes it visible if one is needed."""
    prefix = Path(sys.base_prefix).resolve()
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    executable = prefix / "bin" / name
    if any(prefix == Path(each) or Path(each) in prefix.parents for each in SYSTEM):
        return str(executable), ()
    return str(executable), (Mount(source=str(prefix), target=str(prefix)),)


def find_engine_files() -> EngineFiles:
    """Return where llama.cpp's wheel and its server program are in this installation."""
    python, mounts = find_interpreter()
    library = importlib.util.find_spec("xllamacpp")
    program = importlib.util.find_spec("tramontane.engines.llamacpp_server")
    assert library is not None, "xllamacpp is a dependency"
    assert library.origin is not None
    assert program is not None
    assert program.origin is not None
    return EngineFiles(
        python=python,
        python_mounts=mounts,
        library=str(Path(library.origin).parent),
        program=program.origin,
    )
