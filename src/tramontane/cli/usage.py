"""``tram usage``: what requests of models used and cost, for people and for spreadsheets."""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click

from tramontane.cli.options import any_project_option
from tramontane.cli.output import Item, format_time, make_table, one_line, print_document, width_of
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.plain import Sender
from tramontane.wire.quantities import parse_duration_s

GROUPS = ("project", "model", "key", "service", "cell", "api", "digest", "day")
USUAL_SUMS = "30d"
USUAL_REQUESTS = "24h"
PAGE = 1000

SUM_NUMBERS = (
    *("requests", "not_finished", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("cost_eur", "first_token_s"),
)
"""Columns of a CSV of sums, behind those that they were made by. Only ever added to."""
REQUEST_FIELDS = (
    *("at", "request_id", "project", "service", "model", "digest", "key", "key_name", "api"),
    *("cell", "instance", "status", "end", "prompt_tokens", "cached_tokens"),
    *("completion_tokens", "first_token_s", "duration_s", "cost_eur"),
)
"""Columns of a CSV of requests. Only ever added to."""

Moment = Callable[[float], float]
"""Takes the present, returns the moment that was meant."""


class MomentType(click.ParamType[Moment]):
    """``24h`` ago, or a date: ``2026-11``, ``2026-11-24`` or ``2026-11-24T08:00``, in UTC."""

    name = "moment"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Moment:
        """Return how to find the moment."""
        text = str(value)
        seconds = parse_duration_s(text)
        if seconds is not None:
            return lambda now: max(now - seconds, 0.0)
        try:
            found = datetime.fromisoformat(f"{text}-01" if len(text) == len("2026-11") else text)
        except ValueError:
            self.fail(
                f"expected a duration such as 24h or 7d, or a date such as 2026-11-24 or 2026-11, "
                f"got {text!r}",
                param,
                ctx,
            )
        at = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        if not 0 <= at < 10**11:
            self.fail(f"expected a date after 1970, got {text!r}", param, ctx)
        return lambda _: at


@click.command()
@any_project_option
@click.option("--service", metavar="NAME", help="Only this service.")
@click.option("--key", metavar="ID", help="Only requests with this API key.")
@click.option(
    "--since",
    type=MomentType(),
    metavar="MOMENT",
    help="From here on: 24h, 7d, a day (2026-11-24) or a month (2026-11), in UTC. "
    "Default: 30d, with --requests 24h.",
)
@click.option(
    "--until",
    type=MomentType(),
    metavar="MOMENT",
    help="Up to here, and not including it. Default: now.",
)
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(GROUPS),
    help="Add up by this; may be given several times. Default: model.",
)
@click.option("--requests", is_flag=True, help="List single requests instead of sums.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "csv"]),
    default="table",
    show_default=True,
    help="How to print the answer.",
)
@pass_session
def usage(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    project: str | None,
    service: str | None,
    key: str | None,
    since: Moment | None,
    until: Moment | None,
    by: Sequence[str],
    requests: bool,
    output: str,
) -> None:
    """Show what requests of models used and cost.

    Requests are counted where the engine answers, also those that were cut off; a prompt's tokens
    include those that came from the cache. Costs come from the price that each model had at the
    time. A month's bill by project and key: --since 2026-10 --until 2026-11 --by project --by key
    """
    if requests and by:
        raise click.UsageError("--requests lists single requests: leave out --by")
    session.about("usage")
    now = session.clock.now()
    usual = MomentType().convert(USUAL_REQUESTS if requests else USUAL_SUMS, None, None)
    which: dict[str, Any] = {
        "project": project,
        "service": service,
        "key": key,
        "since": (since or usual)(now),
        "until": None if until is None else until(now),
    }
    if output == "table":
        end = "now" if until is None else format_time(which["until"])
        session.note(f"from {format_time(which['since'])} to {end}")
    if requests:
        _print_requests(output, _fetch_requests(session.api(), which))
    else:
        found = session.api().fetch(calls.get_usage(**which, by=by or ("model",)))
        _print_sums(output, found)


def _print_sums(output: str, found: Item) -> None:
    groups: Sequence[str] = found["by"]
    if output == "csv":
        names = [name for group in groups for name in _group_fields(group)]
        rows = ({**each["group"], **each} for each in found["sums"])
        _write_csv((*names, *SUM_NUMBERS), rows)
    elif output != "table":
        print_document(output, found)
    elif not found["sums"]:
        click.echo("no requests in this time")
    else:
        sums = [*found["sums"], found["total"]]
        titles = ("requests", "unfinished", "prompt", "cached", "completion", "first token")
        numbers = _align(
            (*titles, "cost (EUR)"),
            [[*_counts(each), *cost] for each, cost in zip(sums, _costs(sums), strict=True)],
        )
        words = [[_group_text(each, name) for name in groups] for each in sums[:-1]]
        words.append(["sum", *([""] * (len(groups) - 1))])
        click.echo(make_table([*groups, *numbers[0]], _join(words, numbers[1:])))


def _print_requests(output: str, found: Iterator[Item]) -> None:
    if output == "csv":
        _write_csv(REQUEST_FIELDS, ({**each, "at": _moment(each["at"])} for each in found))
        return
    requests = list(found)
    if output != "table":
        print_document(output, {"requests": requests, "next": None})
    elif not requests:
        click.echo("no requests in this time")
    else:
        titles = ("prompt", "cached", "completion", "first token", "duration", "cost (EUR)")
        lines = [
            [*_tokens(each), _seconds(each["first_token_s"]), _seconds(each["duration_s"]), *cost]
            for each, cost in zip(requests, _costs(requests), strict=True)
        ]
        numbers = _align(titles, lines)
        words = [
            [
                format_time(each["at"]),
                f"{each['project']}/{one_line(each['model'])}",
                _key_text(each),
                each["api"],
                each["end"] if each["end"] != "refused" else f"refused {each['status']}",
            ]
            for each in requests
        ]
        titles = ("at", "model", "key", "api", "end", *numbers[0])
        click.echo(make_table(titles, _join(words, numbers[1:])))


def _fetch_requests(api: Sender, which: Mapping[str, Any]) -> Iterator[Item]:
    cursor: str | None = None
    while True:
        page = api.fetch(calls.list_usage_requests(**which, limit=PAGE, cursor=cursor))
        yield from page["requests"]
        cursor = page["next"]
        if cursor is None:
            return


def _counts(each: Item) -> list[str]:
    requests = [f"{each['requests']:,}", f"{each['not_finished']:,}"]
    return [*requests, *_tokens(each), _seconds(each["first_token_s"])]


def _tokens(each: Item) -> list[str]:
    names = ("prompt_tokens", "cached_tokens", "completion_tokens")
    return [f"{each[name]:,}" for name in names]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _costs(items: Sequence[Item]) -> list[list[str]]:
    """Return amounts with as many digits as the smallest needs to show three that count."""
    amounts = [Decimal(each["cost_eur"]) for each in items]
    smallest = min((each for each in amounts if each), default=Decimal(1))
    places = min(max(2 - smallest.adjusted(), 2), 9)
    return [[f"{each:,.{places}f}"] for each in amounts]


def _group_fields(group: str) -> tuple[str, ...]:
    return ("key", "key_name") if group == "key" else (group,)


def _group_text(each: Item, group: str) -> str:
    value: str = each["group"][group]
    return _key_text({**each, "key": value}) if group == "key" else one_line(value)


def _key_text(each: Item) -> str:
    """Return a key as people know it; the id stays, since names need not be unique."""
    if not each["key"]:
        return "none"
    name = each["key_name"]
    return each["key"] if name is None else f"{one_line(name)} ({each['key']})"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _align(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the titles and the rows, each cell as wide as its column: numbers end together."""
    lines = [titles, *rows]
    widths = [max(width_of(line[i]) for line in lines) for i in range(len(titles))]
    return [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]


def _join(words: Sequence[list[str]], numbers: Sequence[list[str]]) -> list[list[str]]:
    return [[*left, *right] for left, right in zip(words, numbers, strict=True)]


def _write_csv(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(fields)
    for row in rows:
        writer.writerow([_plain_cell(row[name]) for name in fields])


def _plain_cell(value: object) -> object:
    """Return a cell that no spreadsheet takes for a formula: clients choose names of models."""
    if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"}:
        return f"'{value}"
    return "" if value is None else value
