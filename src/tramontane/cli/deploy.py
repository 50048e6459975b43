"""``tram deploy``: from a directory or a model to an address that answers."""

import json
import re
import shlex
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from tramontane.base.errors import InvalidRequest, Unsupported
from tramontane.cli.models import sizing_lines
from tramontane.cli.options import DEFAULT_PROJECT, DurationType, NumberType, output_option
from tramontane.cli.output import print_document
from tramontane.cli.rollout import Rollout, follow, put, upload
from tramontane.cli.session import Session, pass_session
from tramontane.cli.weights import model_reference
from tramontane.domain.definition import ServiceKind
from tramontane.domain.procfile import PROCFILE, implied_kind
from tramontane.domain.reference import parse_reference
from tramontane.wire import calls
from tramontane.wire.manifest import (
    MANIFEST_NAME,
    Manifest,
    ManifestService,
    checked_definition,
    read_manifest,
)
from tramontane.wire.schemas import NAME_PATTERN, ModelSourceBody
from tramontane.wire.strict_yaml import BYTES_MAX

TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line says about the service; None and empty leave the manifest alone."""

    policy: Sequence[str]
    env: Sequence[str]
    min: int | None
    max: int | None


@click.command()
@click.argument("path", required=False, type=click.Path(path_type=Path), metavar="[PATH]")
@click.option("--image", metavar="REF", help="Run this container image.")
@click.option(
    "--model",
    metavar="REF",
    help="Serve a model: tiny, a GGUF file, hf://ORG/REPO[@REV][:FILE], s3:// or oci://.",
)
@click.option("--name", metavar="NAME", help="The service's name. Default: the directory's.")
@click.option("-p", "--project", metavar="PROJECT", help="Default: the manifest's, or default.")
@click.option("--policy", multiple=True, metavar="PRESET", help="Residency; all given must hold.")
@click.option("--env", multiple=True, metavar="K=V", help="An environment variable.")
@click.option("--min", type=NumberType(0, 1000), metavar="N", help="Instances at least.")
@click.option("--max", type=NumberType(1, 1000), metavar="N", help="Instances at most.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it serves.")
@click.option(
    "--timeout", type=DurationType(), default=TIMEOUT_S, show_default="10m", help="Wait this long."
)
@output_option
@pass_session
def deploy(  # noqa: PLR0913 - one argument per option
    session: Session,
    *,
    path: Path | None,
    image: str | None,
    model: str | None,
    name: str | None,
    project: str | None,
    policy: Sequence[str],
    env: Sequence[str],
    min: int | None,  # noqa: A002 - the option's name
    max: int | None,  # noqa: A002 - the option's name
    wait: bool,
    timeout: float,
    output: str,
) -> None:
    """Deploy the directory PATH (default: this one), or a model.

    A tramontane.yaml in PATH is used; what is given here wins. Without one, the language is
    detected. The last line printed is the address, if the service has one: a worker has none.
    """
    if image is not None:
        session.about(f"image {image}")
        raise Unsupported(
            "--image needs a cell with a container runtime, which this version does not have",
            next_step="deploy a directory or a model",
        )
    if model is not None and path is not None:
        raise click.UsageError("PATH and --model exclude each other: deploy one of them")
    session.about(f"source {path or 'in this directory'}" if model is None else f"model {model}")
    if model is None:
        directory = _check_directory(path or Path())
        manifest = _manifest(directory)
    else:
        directory, manifest = None, _manifest_of_model(model)
    project = project or manifest.project or DEFAULT_PROJECT
    (service,) = manifest.services
    name = name or service.name or default_name(model, directory)
    session.about_service(project, name)
    note_workers(session, {name: service})
    flags = Flags(policy=policy, env=env, min=min, max=max)
    service = apply_flags(service, flags)
    api = session.api()
    digest = ""
    if service.needs_source and directory is not None:
        digest = upload(session, api, directory)
    rollout = put(api, project, name, service.with_source(digest))
    session.note(f"{name} in project {project}: {rollout}")
    for warning in rollout.warnings:
        session.note(f"{name}: warning: {warning}")
    finish(session, rollout, wait=wait, timeout_s=timeout, output=output)


def finish(
    session: Session, rollout: Rollout, *, wait: bool, timeout_s: float, output: str
) -> None:
    """Follow one deployment if that is wanted, and print the service's address last."""
    api = session.api()
    if wait:
        service = follow(session, api, rollout, timeout_s)
    else:
        service = api.fetch(calls.get_service(rollout.project, rollout.name))
    for line in sizing_lines(service["sizing"]) if service.get("sizing") else ():
        session.note(line)
    if not service["policy"]:
        session.note("no policy: it may run on any cell")
    if output != "table":
        print_document(output, service)
    else:
        click.echo(service["url"] or f"{rollout.name} is {service['status']}")


def read_manifest_file(file: Path) -> Manifest:
    """Return the manifest in a file; raise ``InvalidRequest`` if it is not one."""
    if file.is_dir():
        file = file / MANIFEST_NAME
    try:
        with file.open("rb") as source:
            # One byte more than allowed, so that the reader can tell and memory stays small.
            manifest = read_manifest(
                source.read(BYTES_MAX + 1), str(file), partial(kind_of_source, file.parent)
            )
    except OSError as error:
        raise InvalidRequest(
            f"cannot read {file}: {_why(error)}",
            next_step="give the file with -f FILE; "
            "a directory without a manifest is deployed with: tram deploy",
        ) from error
    services = tuple(_with_whole_path(each, file.parent) for each in manifest.services)
    return replace(manifest, services=services)


def kind_of_source(directory: Path, root: str) -> ServiceKind:
    """Return what the source in a directory says it is, by its Procfile."""
    try:
        with (directory / root / PROCFILE).open("rb") as file:
            return implied_kind(file.read(BYTES_MAX).decode("utf-8-sig", "replace"))
    except (OSError, ValueError):
        # None that can be read says nothing; what is wrong with ``root`` is said elsewhere.
        return ServiceKind.WEB


def note_workers(session: Session, services: Mapping[str, ManifestService]) -> None:
    """Tell which services are workers only because their source is."""
    for name, service in services.items():
        if service.implied_worker:
            session.note(
                f"{name} is a worker, without an address: its {PROCFILE} has a `worker:` line and "
                f"no `web:` line ({MANIFEST_NAME} may say `kind: web`)"
            )


def _with_whole_path(service: ManifestService, directory: Path) -> ManifestService:
    source = service.definition.source
    if not isinstance(source, ModelSourceBody):
        return service
    source = ModelSourceBody(model=model_reference(source.model, directory))
    return replace(service, definition=service.definition.model_copy(update={"source": source}))


def default_name(model: str | None, directory: Path | None) -> str:
    """Return a name made from the directory's or the model's: a DNS label."""
    if model is not None:
        source = parse_reference(model_reference(model, Path())).label
    else:
        source = (directory or Path()).name
    label = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-0123456789")[:40].rstrip("-")
    if not re.match(NAME_PATTERN, label):
        raise InvalidRequest(
            f'cannot make a service name from "{source}"', next_step="give one with --name"
        )
    return label


def apply_flags(service: ManifestService, flags: Flags) -> ManifestService:
    """Return the service with what the command line says about it."""
    body = service.definition.model_dump()
    if flags.policy:
        body["policy"] = list(dict.fromkeys(flags.policy))
    body["environment"] |= dict(_variable(each) for each in flags.env)
    body["scaling"] |= _scaling(body["scaling"], flags)
    return replace(service, definition=checked_definition(body, "the command line"))


def _scaling(scaling: dict[str, Any], flags: Flags) -> dict[str, Any]:
    low = scaling["min"] if flags.min is None else flags.min
    high = scaling["max"] if flags.max is None else flags.max
    if low > high:
        # The side that was not asked for follows the one that was.
        if flags.max is None:
            high = low
        elif flags.min is None:
            low = high
        else:
            raise click.UsageError(f"--min {low} is more than --max {high}")
    return {"min": low, "max": high}


def _variable(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        # The value may be a secret, so only the key is repeated.
        problem = f"{key!r} has no =" if key else "there is no name before the ="
        raise click.UsageError(f"--env expects KEY=VALUE: {problem}")
    return key, value


def _manifest_of_model(model: str) -> Manifest:
    # As if there were one with this key alone.
    document = json.dumps({"model": model_reference(model, Path())}, ensure_ascii=False)
    return read_manifest(document.encode("utf-8", "replace"), "--model")


def _manifest(directory: Path) -> Manifest:
    file = directory / MANIFEST_NAME
    if not file.exists():
        # As if there were one without any key.
        return read_manifest(b"{}", kind_of_source=partial(kind_of_source, directory))
    manifest = read_manifest_file(file)
    if len(manifest.services) != 1:
        raise InvalidRequest(
            f"{file} has {len(manifest.services)} services",
            next_step=f"deploy them with: tram apply -f {shlex.quote(str(file))}",
        )
    return manifest


def _check_directory(path: Path) -> Path:
    """Return the directory's whole path; raise ``InvalidRequest`` if it is none."""
    next_step = "give the directory of an app: tram deploy PATH"
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path.resolve()
    except OSError as error:
        raise InvalidRequest(f"cannot deploy {path}: {_why(error)}", next_step=next_step) from error
    if path.suffix in {".yaml", ".yml"}:
        next_step = f"if it is a manifest: tram apply -f {shlex.quote(str(path))}"
    elif path.suffix == ".gguf":
        next_step = f"if it is a model: tram deploy --model {shlex.quote(str(path))}"
    raise InvalidRequest(f"cannot deploy {path}: it is not a directory", next_step=next_step)


def _why(error: OSError) -> str:
    return "it does not exist" if isinstance(error, FileNotFoundError) else str(error.strerror)
