"""Limits of tokens as options of commands, and as people read them."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeVar

import click

from tramontane.cli.options import NumberType

F = TypeVar("F", bound=Any)
_BUDGET = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)/(day|month)")
OPTIONS = ("requests_per_minute", "tokens_per_minute", "streams", "budget")


class BudgetType(click.ParamType[tuple[str, str]]):
    """``5/day`` or ``100/month``: euro, and after what the budget starts anew."""

    name = "budget"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the amount in euro, and the period."""
        found = _BUDGET.fullmatch(value)
        if not found or not Decimal(found[1]):
            self.fail(f"expected euro per day or month such as 5/day, got {value!r}", param, ctx)
        return found[1], found[2]


def limit_options(command: F) -> F:
    """Add the options that say how much a token may use."""
    number = NumberType(min=1)
    for option in (
        click.option("--budget", type=BudgetType(), help="Euro per day or month, such as 5/day."),
        click.option("--streams", type=number, metavar="N", help="Requests at the same time."),
        click.option("--tokens-per-minute", type=number, metavar="N", help="In and out together."),
        click.option("--requests-per-minute", type=number, metavar="N", help="To all models."),
    ):
        command = option(command)
    return command


def read_limits(options: Mapping[str, Any]) -> dict[str, object]:
    """Return the limits as the API takes them, out of the options above."""
    budget: tuple[str, str] | None = options["budget"]
    named = {name: options[name] for name in OPTIONS if name != "budget"}
    if budget is not None:
        named |= {"budget_eur": budget[0], "budget_period": budget[1]}
    return {name: value for name, value in named.items() if value is not None}


def describe_limits(limits: Mapping[str, Any] | None) -> list[str]:
    """Return the limits in a few words each."""
    if limits is None:
        return []
    words = [
        (limits["requests_per_minute"], "requests/min"),
        (limits["tokens_per_minute"], "tokens/min"),
        (limits["streams"], "at a time"),
    ]
    described = [f"{number:,} {unit}" for number, unit in words if number is not None]
    if limits["budget_eur"] is not None:
        described.append(
            f"{Decimal(limits['budget_eur']).normalize():f} €/{limits['budget_period']}"
        )
    return described
