"""Prints answers: a table for people, the API's own document for programs."""

import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import click

from tramontane.cli.lazy import load

Item = Mapping[str, Any]
Column = tuple[str, Callable[[Item], object]]
"""A heading, and how a cell is read from a document of the API."""

LONG_LIST = 100

_STYLES = {
    **dict.fromkeys(("healthy", "running", "satisfied", "yes"), "green"),
    **dict.fromkeys(("pending", "starting", "building", "degraded", "unknown"), "yellow"),
    **dict.fromkeys(("error", "failed", "unhealthy", "violated", "no"), "red"),
}


def print_list(output: str, items: Sequence[Item], columns: Sequence[Column], none: str) -> None:
    """Print a list; ``none`` is the sentence for an empty one."""
    if output != "table":
        print_document(output, items)
    elif not items:
        click.echo(none)
    else:
        click.echo(make_table([title for title, _ in columns], _rows(items, columns)))


def print_one(output: str, item: Item, columns: Sequence[Column]) -> None:
    """Print one object: its fields below each other."""
    if output != "table":
        print_document(output, item)
        return
    pairs = [(title.lower(), _text(read(item))) for title, read in columns]
    width = max(len(title) for title, _ in pairs)
    click.echo("\n".join(f"{title:<{width}}  {paint(text)}" for title, text in pairs if text))


def print_document(output: str, document: object) -> None:
    """Print a document as JSON or YAML."""
    if output == "yaml":
        # PyYAML takes longer to import than most commands take to run.
        click.echo(load("tramontane.cli.as_yaml:to_yaml")(document), nl=False)
    else:
        click.echo(_to_json(document))


def _to_json(document: object) -> str:
    if isinstance(document, list) and len(cast("list[object]", document)) > LONG_LIST:
        # Python indents slowly; one item per line is quick, and good for `grep` besides.
        items = [json.dumps(each, ensure_ascii=False) for each in cast("list[object]", document)]
        return "[\n" + ",\n".join(items) + "\n]"
    return json.dumps(document, indent=2, ensure_ascii=False)


def make_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: two spaces between columns, none at the end of a line."""
    lines = [[title.upper() for title in titles], *rows]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(titles))]
    return "\n".join(_line(line, widths) for line in lines)


def width_of(text: str) -> int:
    """Return the columns that text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF")
        for letter in text
    )


def format_time(at: float | None) -> str:
    """Return a moment in UTC, to the second."""
    if at is None:
        return ""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def paint(text: str) -> str:
    """Return the text in the colour of its meaning; click removes it where none is wanted."""
    colour = _STYLES.get(text)
    return click.style(text, fg=colour) if colour else text


def one_line(text: str) -> str:
    """Return text of a user's making as it can stand in a table: control characters shown."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        paint(cell) + " " * (width - width_of(cell))
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _rows(items: Sequence[Item], columns: Sequence[Column]) -> list[list[str]]:
    return [[_text(read(item)) or "-" for _, read in columns] for item in items]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_text(each) for each in value)  # type: ignore[misc]
    return one_line(str(value))
