"""Options and arguments that many commands share, so that they read the same everywhere."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tramontane.wire.quantities import (
    DURATION_FORM,
    EUROS_FORM,
    SIZE_FORM,
    is_euros,
    parse_duration_s,
    parse_size_bytes,
)

DEFAULT_PROJECT = "default"

F = TypeVar("F", bound=Callable[..., Any])


class DurationType(click.ParamType[float]):
    """``30s``, ``5m``, ``1h30m`` or a number of seconds, as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds."""
        if isinstance(value, int | float):
            return float(value)
        try:
            seconds = float(value)
        except ValueError:
            seconds = parse_duration_s(value)
        if seconds is None or not 0 <= seconds < 10**9:
            self.fail(f"expected {DURATION_FORM}, got {value!r}", param, ctx)
        return seconds


class NumberType(click.IntRange):
    """A whole number within limits, called so when it is none."""

    name = "whole number"


class SizeType(click.ParamType[int]):
    """``512MiB``, ``1GB`` or a number of bytes, as bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        size = parse_size_bytes(value)
        if size is None:
            self.fail(f"expected {SIZE_FORM}, got {value!r}", param, ctx)
        return size


class EurosType(click.ParamType[str]):
    """``0.12``, as it was written: amounts are never binary fractions."""

    name = "euros"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged if it is an amount."""
        if not is_euros(str(value)):
            self.fail(f"expected {EUROS_FORM}, got {value!r}", param, ctx)
        return str(value)


def output_option(command: F) -> F:
    """Add ``-o``."""
    return click.option(
        "-o",
        "--output",
        "output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )(command)


def project_option(command: F) -> F:
    """Add ``--project`` for commands that are about one service."""
    return click.option(
        "-p",
        "--project",
        metavar="PROJECT",
        default=DEFAULT_PROJECT,
        show_default=True,
        help="The project of the service.",
    )(command)


def any_project_option(command: F) -> F:
    """Add ``--project`` for commands that list over all projects without it."""
    return click.option(
        "-p", "--project", metavar="PROJECT", default=None, help="Only this project."
    )(command)


def name_argument(command: F) -> F:
    """Add the name of a service."""
    return click.argument("name", metavar="NAME")(command)
