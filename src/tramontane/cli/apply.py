"""``tram apply`` and ``tram plan``: all services of a manifest at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tramontane.base.errors import TramontaneError
from tramontane.cli.deploy import TIMEOUT_S, default_name, note_workers, read_manifest_file
from tramontane.cli.failures import report
from tramontane.cli.models import sizing_lines
from tramontane.cli.operate import print_candidates
from tramontane.cli.options import DEFAULT_PROJECT, DurationType, output_option
from tramontane.cli.output import make_table, one_line, print_document
from tramontane.cli.rollout import Rollout, digest_of, follow, put, upload
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.manifest import MANIFEST_NAME, Manifest, ManifestService
from tramontane.wire.schemas import AliasBody, DefinitionBody

FILE_OPTION = click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    default=Path(MANIFEST_NAME),
    show_default=MANIFEST_NAME,
    metavar="FILE",
    help="The manifest; its directory holds the source.",
)
PROJECT_OPTION = click.option(
    "-p", "--project", metavar="PROJECT", help="Instead of the manifest's."
)


@click.command()
@FILE_OPTION
@PROJECT_OPTION
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until all serve.")
@click.option(
    "--timeout", type=DurationType(), default=TIMEOUT_S, show_default="10m", help="For each."
)
@output_option
@pass_session
def apply(
    session: Session,
    *,
    file: Path,
    project: str | None,
    wait: bool,
    timeout: float,
    output: str,
) -> int:
    """Deploy all services of a manifest; what has not changed is left alone."""
    session.about(f"manifest {file}")
    manifest = read_manifest_file(file)
    named = _named(manifest, file)
    note_workers(session, named)
    project = project or manifest.project or DEFAULT_PROJECT
    api = session.api()
    digest = upload(session, api, _directory(file)) if _needs_source(manifest) else ""
    wanted = _definitions(named, digest)
    planned = api.fetch(calls.plan_services(project, wanted))
    unchanged = {each["name"] for each in planned["services"] if each["action"] == "unchanged"}
    for service in planned["services"]:
        for warning in service.get("warnings", ()):
            session.note(f"{service['name']}: warning: {warning}")
    rollouts: list[Rollout] = []
    for name, definition in wanted.items():
        if name in unchanged:
            session.note(f"{name}: unchanged")
            continue
        session.about_service(project, name)
        rollouts.append(put(api, project, name, definition))
        session.note(f"{name}: {rollouts[-1]}")
    _put_aliases(session, project, manifest)
    exit_code = _wait_for_all(session, rollouts, timeout) if wait else 0
    found = [api.fetch(calls.get_service(project, name)) for name in wanted]
    if output != "table":
        print_document(output, found)
    else:
        rows = [[each["name"], each["status"], each["url"] or "-"] for each in found]
        click.echo(make_table(["name", "status", "url"], rows))
    return exit_code


@click.command()
@FILE_OPTION
@PROJECT_OPTION
@output_option
@pass_session
def plan(session: Session, file: Path, project: str | None, output: str) -> None:
    """Show what apply would change and where each service may run. Changes nothing."""
    session.about(f"manifest {file}")
    manifest = read_manifest_file(file)
    named = _named(manifest, file)
    note_workers(session, named)
    digest = digest_of(session, _directory(file)) if _needs_source(manifest) else ""
    session.progress_done()
    wanted = _definitions(named, digest)
    project = project or manifest.project or DEFAULT_PROJECT
    found = session.api().fetch(calls.plan_services(project, wanted))
    if output != "table":
        print_document(output, found)
        return
    for position, service in enumerate(found["services"]):
        if position:
            click.echo()
        _print_planned(service)
    present = {each["name"]: each for each in session.api().fetch(calls.list_aliases(project))}
    for name, alias in manifest.aliases.items():
        body = alias.model_dump()
        same = name in present and body == {key: present[name][key] for key in body}
        action = "unchanged" if same else "update" if name in present else "create"
        click.echo(f"\n{name}: {action}\n  an alias of {_describe(alias)}")


def _put_aliases(session: Session, project: str, manifest: Manifest) -> None:
    """After the services that they name, which need not serve yet."""
    for name, alias in manifest.aliases.items():
        session.about(f"alias {name} in project {project}", "tram models list")
        call = calls.put_alias(
            project,
            name,
            targets=[(each.service, each.percent) for each in alias.targets],
            canaries=[(each.header, each.value, each.service) for each in alias.canaries],
            fallbacks=alias.fallbacks,
            first_token_s=alias.first_token_s,
            between_tokens_s=alias.between_tokens_s,
        )
        session.api().fetch(call)
        session.note(f"{name}: an alias of {_describe(alias)}")


def _describe(alias: AliasBody) -> str:
    return ", ".join(f"{each.service} ({each.percent} %)" for each in alias.targets)


def _print_planned(service: dict[str, Any]) -> None:
    placeable = (
        "" if service["placeable"] else "; no cell may and can run it: it would stay pending"
    )
    click.echo(f"{service['name']}: {service['action']}{placeable}")
    for said in (service.get("problem"), service.get("note")):
        if said:
            click.echo(f"  {one_line(said)}")
    for line in _sizing_lines(service["candidates"]):
        click.echo(f"  {line}")
    for change in service["changes"]:
        click.echo(f"  {change}")
    if service.get("models"):
        click.echo(f"  may call models: {', '.join(service['models'])}")
    for warning in service.get("warnings", ()):
        click.echo(f"  warning: {warning}")
    print_candidates(service["candidates"])


def _sizing_lines(candidates: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the size of an instance in the first cell, which is the best."""
    sizing = candidates[0].get("sizing") if candidates else None
    return sizing_lines(sizing) if sizing else []


def _wait_for_all(session: Session, rollouts: list[Rollout], timeout_s: float) -> int:
    """Follow one after the other; report each failure and return the first one's exit code."""
    exit_code = 0
    for rollout in rollouts:
        session.about_service(rollout.project, rollout.name)
        try:
            follow(session, session.api(), rollout, timeout_s)
        except TramontaneError as error:
            code = report(error, session)
            exit_code = exit_code or code
    return exit_code


def _named(manifest: Manifest, file: Path) -> dict[str, ManifestService]:
    return {
        service.name or default_name(None, _directory(file)): service
        for service in manifest.services
    }


def _definitions(named: Mapping[str, ManifestService], digest: str) -> dict[str, DefinitionBody]:
    return {name: service.with_source(digest) for name, service in named.items()}


def _needs_source(manifest: Manifest) -> bool:
    return any(service.needs_source for service in manifest.services)


def _directory(file: Path) -> Path:
    return file.resolve() if file.is_dir() else file.resolve().parent
