"""Opens a model's files and returns its facts: the edge around ``engines.headers``.

Called by ``processes`` for ``tram models inspect``, ``tram plan`` and when a model is prepared.
Only headers are read, so a model of any size takes milliseconds.
"""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from tramontane.base.errors import InvalidRequest
from tramontane.domain.model import ModelFacts
from tramontane.engines.headers.config import CONFIG_BYTES_MAX, facts_of_safetensors, parse_config
from tramontane.engines.headers.gguf import GgufHeader, read_gguf
from tramontane.engines.headers.gguf_facts import facts_of_gguf
from tramontane.engines.headers.reading import MalformedHeader, parse_json
from tramontane.engines.headers.safetensors import (
    INDEX_BYTES_MAX,
    SafeTensor,
    read_index,
    read_safetensors,
)

PARTS_MAX = 1000
README_BYTES_MAX = 64 * 1024
TEMPLATE_BYTES_MAX = 1024**2

CONFIG, INDEX, SINGLE = "config.json", "model.safetensors.index.json", "model.safetensors"
_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_LICENCE = re.compile(r"^license: *[\"']?([A-Za-z0-9][\w.+-]{0,63})[\"']? *$", re.MULTILINE)


def inspect_model(path: Path) -> ModelFacts:
    """Return the facts of a GGUF file, or of a directory with ``config.json`` and safetensors.

    Raises ``InvalidRequest`` if it cannot be read or is neither.
    """
    try:
        return _inspect_directory(path) if path.is_dir() else _inspect_gguf(path)
    except MalformedHeader as error:
        raise MalformedHeader(
            f"cannot use the model {path}: {error.message}", path="source.model"
        ) from error
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {error.filename or path}: {error.strerror}; give the absolute path of a "
            "GGUF file, or of a directory with config.json and safetensors, on the platform's "
            "machine",
            path="source.model",
        ) from error


def weight_files(path: Path) -> tuple[Path, ...]:
    """Return the files that the weights are in, in order: all parts of a GGUF file that was split.

    Raises ``MalformedHeader`` or ``OSError``.
    """
    if path.is_dir():
        return _safetensors_in(path)
    found = _PART.fullmatch(path.name)
    if found is None:
        return (path,)
    stem, _, total = found.groups()
    if not 0 < int(total) <= PARTS_MAX:
        raise MalformedHeader(f"its name claims {int(total)} parts")
    return tuple(
        path.with_name(f"{stem}-{number:05}-of-{total}.gguf") for number in range(1, int(total) + 1)
    )


def _inspect_gguf(path: Path) -> ModelFacts:
    files = weight_files(path)
    headers: list[GgufHeader] = []
    for each in files:
        try:
            with _open(each) as file:
                headers.append(read_gguf(file, _size_of(file)))
        except MalformedHeader as error:
            part = f"{each.name}: " if len(files) > 1 else ""
            raise MalformedHeader(f"{part}{error.message}") from error
    first = headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    whole = replace(first, tensors=tensors)
    return facts_of_gguf(whole, sum(each.stat().st_size for each in files))


def _inspect_directory(path: Path) -> ModelFacts:
    config = parse_config(_read(path / CONFIG, CONFIG_BYTES_MAX))
    files = _safetensors_in(path)
    tensors: list[SafeTensor] = []
    for each in files:
        try:
            with _open(each) as file:
                tensors.extend(read_safetensors(file, _size_of(file)))
        except MalformedHeader as error:
            raise MalformedHeader(f"{each.name}: {error.message}") from error
    return facts_of_safetensors(
        config,
        tensors,
        size_bytes=sum(each.stat().st_size for each in files),
        template=_template_in(path),
        licence=_licence_in(path),
    )


def _safetensors_in(path: Path) -> tuple[Path, ...]:
    if (path / INDEX).exists():
        names = read_index(_read(path / INDEX, INDEX_BYTES_MAX))
        return tuple(path / each for each in names)
    return (path / SINGLE,)


def _template_in(path: Path) -> str | None:
    """Return the chat template, which has a file of its own or stands in the tokenizer's."""
    try:
        return _read(path / "chat_template.jinja", TEMPLATE_BYTES_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        pass
    try:
        raw = _read(path / "tokenizer_config.json", CONFIG_BYTES_MAX)
    except FileNotFoundError:
        return None
    template = parse_json(raw, "tokenizer_config.json").get("chat_template")
    # Several templates by name come as a list: one for tools is enough to know them.
    return template if isinstance(template, str) else json.dumps(template) if template else None


def _licence_in(path: Path) -> str | None:
    """Return the licence that the model card's front matter names."""
    try:
        with _open(path / "README.md") as file:
            text = file.read(README_BYTES_MAX).decode("utf-8", "replace").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    if not text.startswith("---\n"):
        return None
    found = _LICENCE.search(text[4:].partition("\n---")[0])
    return found[1] if found else None


def _read(path: Path, most: int) -> bytes:
    with _open(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise MalformedHeader(f"{path.name} is longer than {most} bytes")
    return raw


def _open(path: Path) -> BinaryIO:
    """Return a regular file: nothing else that has a name ends for certain, or answers at all."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise MalformedHeader(f"{path.name} is not a regular file")
    return file


def _size_of(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
