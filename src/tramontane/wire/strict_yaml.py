"""Reads YAML written by people without the traps of YAML.

Plain scalars follow the YAML 1.2 core schema, so ``NO`` and ``on`` are text and ``1_000`` is no
number. What a manifest does not need is an error that says where: tabs, duplicate keys, tags,
merge keys, several documents. Size, depth and the number of values are limited, aliases counted
each time they are used, so a few lines cannot expand into gigabytes. Called by ``wire.manifest``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import yaml

from tramontane.base.errors import InvalidRequest

BYTES_MAX = 1024 * 1024
VALUES_MAX = 20_000
DEPTH_MAX = 16

Path = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,32}|[0-9]{1,32}(\.[0-9]{0,32})?)([eE][-+]?[0-9]{1,3})?")
_CONSTANTS: dict[str, object] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def load_yaml(raw: bytes, name: str, is_text: Callable[[Path], bool]) -> Any:
    """Return the one document in ``raw``; ``name`` stands for the file in messages.

    Scalars at a path where ``is_text`` holds keep the text as written, whatever it looks like.
    Raises nothing but ``InvalidRequest``.
    """
    if len(raw) > BYTES_MAX:
        raise InvalidRequest(f"{name}: larger than 1 MiB; a manifest is a few lines")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{name}: not UTF-8 text (byte {error.start}): save the file as UTF-8", path=name
        ) from error
    reader = _Reader(name, is_text)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):  # type: ignore[no-untyped-call]
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        where = f" line {mark.line + 1}" if (mark := error.problem_mark) else ""
        raise InvalidRequest(f"{name}{where}: {_plain(error)}") from error
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        # PyYAML's scanner lets these through for a few malformed escapes and numbers.
        raise InvalidRequest(f"{name}: not YAML ({error})") from error
    return reader.document


def _plain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "not YAML"
    if "\\t" in problem:
        return "a tab where YAML wants spaces: indent with spaces"
    return problem


@dataclass
class _Collection:
    """A mapping or a sequence that is being read."""

    value: dict[str, Any] | list[Any]
    anchor: str | None
    key: str | None = None
    """The key that the next event is the value of; only in mappings."""


class _Reader:
    """Builds values from parser events without recursion: depth is data, not stack."""

    def __init__(self, name: str, is_text: Callable[[Path], bool]) -> None:
        self.document: Any = None
        self._name = name
        self._is_text = is_text
        self._open: list[_Collection] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._documents = 0
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._error(event, "several documents; a manifest is one")
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.MappingStartEvent():
                self._start(event, {})
            case yaml.SequenceStartEvent():
                self._start(event, [])
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                done = self._open.pop()
                self._add(event, done.value, done.anchor, _count(done.value))
            case yaml.AliasEvent():
                self._alias(event)
            case _:
                pass

    def _start(self, event: yaml.CollectionStartEvent, value: dict[str, Any] | list[Any]) -> None:
        if event.tag is not None:
            raise self._error(event, f"the tag {event.tag} is not supported: remove it")
        if self._wants_key():
            raise self._error(event, "a key must be a word, not a list or a mapping")
        if len(self._open) >= DEPTH_MAX:
            raise self._error(event, f"nested deeper than {DEPTH_MAX} levels")
        self._open.append(_Collection(value, event.anchor))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text: str = event.value
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise self._error(event, "half of a surrogate pair is not text")
        if event.tag not in {None, "!", "tag:yaml.org,2002:str"}:
            raise self._error(event, f"the tag {event.tag} is not supported: remove it")
        if self._wants_key():
            self._take_key(event, text)
            return
        plain = event.tag is None and event.implicit[0]
        value = _resolve(text) if plain and not self._is_text(self._path()) else text
        self._add(event, value, event.anchor, 1)

    def _take_key(self, event: yaml.ScalarEvent, key: str) -> None:
        mapping = self._open[-1].value
        assert isinstance(mapping, dict)
        if key == "<<" and event.implicit[0]:
            raise self._error(event, "merge keys (<<) are not supported: write the keys out")
        if key in mapping:
            raise self._error(event, f"{quoted(key)} is given twice: keep one")
        if event.anchor is not None:
            raise self._error(event, "an anchor on a key is not supported: remove it")
        self._open[-1].key = key

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._wants_key():
            raise self._error(event, "an alias as a key is not supported: write the key out")
        found = self._anchors.get(str(event.anchor))
        if found is None:
            raise self._error(event, f"the alias *{event.anchor} has no anchor before it")
        value, size = found
        self._values += size
        self._add(event, value, None, 0)

    def _add(self, event: yaml.Event, value: Any, anchor: str | None, size: int) -> None:
        self._values += 1
        if self._values > VALUES_MAX:
            raise self._error(event, f"more than {VALUES_MAX} values, aliases counted in full")
        if anchor is not None:
            self._anchors[anchor] = (value, size)
        if not self._open:
            self.document = value
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        else:
            assert parent.key is not None
            parent.value[parent.key] = value
            parent.key = None

    def _wants_key(self) -> bool:
        return (
            bool(self._open)
            and isinstance(self._open[-1].value, dict)
            and (self._open[-1].key is None)
        )

    def _path(self) -> Path:
        return tuple(
            len(each.value) if isinstance(each.value, list) else each.key or ""
            for each in self._open
        )

    def _error(self, event: yaml.Event, text: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name} line {_line(event)}: {text}")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def quoted(text: str) -> str:
    """Return text from a user's file as it can stand in a message: one short printable line."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _resolve(text: str) -> object:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _count(value: Any) -> int:
    """Return how many values a finished collection holds; shared parts count each time."""
    total = 0
    rest: list[Any] = [value]
    while rest and total <= VALUES_MAX:
        total += 1
        each = rest.pop()
        if isinstance(each, dict):
            rest.extend(cast("dict[str, Any]", each).values())
        elif isinstance(each, list):
            rest.extend(cast("list[Any]", each))
    return total
