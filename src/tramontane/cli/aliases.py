"""``tram aliases``: names under which several models are asked for."""

from collections.abc import Sequence

import click

from tramontane.cli.lazy import SuggestingGroup
from tramontane.cli.options import (
    DurationType,
    any_project_option,
    output_option,
    project_option,
)
from tramontane.cli.output import Column, Item, format_time, print_list, print_one
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.alias_forms import CANARY_FORM, SHARE_FORM, parse_canary, parse_share

NAME = click.argument("name", metavar="NAME")


class ShareType(click.ParamType[tuple[str, int]]):
    """``small=90``: a model service and its share in per cent; alone it has all."""

    name = "share"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Return the service and its share."""
        share = parse_share(value)
        if share is None:
            self.fail(f"expected {SHARE_FORM}, got {value!r}", param, ctx)
        return share


class CanaryType(click.ParamType[tuple[str, str, str]]):
    """``x-canary=yes:large``: a header, its value, and the model service for such requests."""

    name = "canary"

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str, str]:
        """Return header, value and service."""
        canary = parse_canary(value)
        if canary is None:
            self.fail(f"expected {CANARY_FORM}, got {value!r}", param, ctx)
        return canary


def _targets(alias: Item) -> list[str]:
    return [f"{each['service']}={each['percent']}" for each in alias["targets"]]


def _canaries(alias: Item) -> list[str]:
    return [f"{each['header']}={each['value']}:{each['service']}" for each in alias["canaries"]]


def _seconds(field: str) -> Column:
    def read(alias: Item) -> str | None:
        return None if alias[field] is None else f"{alias[field]:g}s"

    return field.removesuffix("_s").replace("_", " "), read


ALIAS_COLUMNS: Sequence[Column] = (
    ("name", lambda each: each["name"]),
    ("project", lambda each: each["project"]),
    ("to", _targets),
    ("canary", _canaries),
    ("fallback", lambda each: each["fallbacks"]),
    _seconds("first_token_s"),
    _seconds("between_tokens_s"),
)
ALIAS_FIELDS: Sequence[Column] = (
    *ALIAS_COLUMNS,
    ("skipped", lambda each: ", ".join(f"{name} was deleted" for name in each["missing"])),
    ("created", lambda each: format_time(each["created_at"])),
)


@click.group(cls=SuggestingGroup)
def aliases() -> None:
    """Names under which several models are asked for."""


@aliases.command("list")
@any_project_option
@output_option
@pass_session
def list_aliases(session: Session, project: str | None, output: str) -> None:
    """List aliases."""
    session.about("aliases" if project is None else f"aliases of project {project}")
    found = session.api().fetch(calls.list_aliases(project))
    none = "no aliases yet; make one with: tram aliases set NAME --to SERVICE"
    print_list(output, found, ALIAS_COLUMNS, none)


@aliases.command("get")
@NAME
@project_option
@output_option
@pass_session
def get_alias(session: Session, name: str, project: str, output: str) -> None:
    """Show one alias."""
    session.about(f"alias {name} in project {project}", "tram aliases list")
    print_one(output, session.api().fetch(calls.get_alias(project, name)), ALIAS_FIELDS)


@aliases.command("set")
@NAME
@click.option(
    "--to",
    "targets",
    type=ShareType(),
    multiple=True,
    required=True,
    metavar="SERVICE[=PERCENT]",
    help="A model service and its share; shares add up to 100.",
)
@click.option(
    "--canary-header",
    "canaries",
    type=CanaryType(),
    multiple=True,
    metavar="HEADER=VALUE:SERVICE",
    help="Requests with this header go to this service.",
)
@click.option(
    "--fallback",
    "fallbacks",
    multiple=True,
    metavar="SERVICE",
    help="Tried when the chosen service fails before it answers; several in this order.",
)
@click.option(
    "--first-token", type=DurationType(), help="A stream that has not begun by then falls back."
)
@click.option(
    "--between-tokens",
    type=DurationType(),
    help="A stream that is silent for so long has failed; at least --first-token.",
)
@project_option
@output_option
@pass_session
def set_alias(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    name: str,
    targets: Sequence[tuple[str, int]],
    canaries: Sequence[tuple[str, str, str]],
    fallbacks: Sequence[str],
    first_token: float | None,
    between_tokens: float | None,
    project: str,
    output: str,
) -> None:
    """Make an alias, or replace all that it says. It serves at once.

    tram aliases set assistant --to small=90 --to large=10 --fallback tiny

    tram aliases set assistant --to small --canary-header x-canary=yes:large --first-token 20s
    """
    session.about(f"alias {name} in project {project}", "tram models list")
    call = calls.put_alias(
        project,
        name,
        targets=targets,
        canaries=canaries,
        fallbacks=fallbacks,
        first_token_s=first_token,
        between_tokens_s=between_tokens,
    )
    print_one(output, session.api().fetch(call), ALIAS_FIELDS)


@aliases.command("delete")
@NAME
@project_option
@pass_session
def delete_alias(session: Session, name: str, project: str) -> None:
    """Forget an alias; its services stay."""
    session.about(f"alias {name} in project {project}", "tram aliases list")
    session.api().fetch(calls.delete_alias(project, name))
    click.echo(f"alias {name} is deleted")
