"""Every operation of ``/api/v1`` once, as data: method, path, query and body.

The clients (``wire.client``) send these over httpx and parse the answers into schemas; the command
line sends the same over ``wire.plain`` and prints the answers as they come. Nothing here does I/O,
and nothing here imports pydantic or httpx: ``tram`` starts in a tenth of a second because of that.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from tramontane.base.errors import InvalidRequest

PREFIX = "/api/v1"
USUAL_TIMEOUT_S = 30.0
UPLOAD_TIMEOUT_S = 600.0


class Document(Protocol):
    """A request body that knows its JSON form: every pydantic model of ``wire.schemas``."""

    def model_dump_json(self) -> str:
        """Return the body as JSON text."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request, not yet sent."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    file: Path | None = None
    """Sent as the body instead of ``body``, without being read into memory."""
    content_type: str = "application/json"
    accept: str = "application/json"
    repeatable: bool = True
    """Whether sending it twice has the effect of sending it once."""
    timeout_s: float | None = USUAL_TIMEOUT_S
    """Of each read. None: wait for ever, which only streams do."""

    @property
    def target(self) -> str:
        """The path with its query, as it stands in the request line."""
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    @property
    def changes(self) -> bool:
        """Whether the call asks for a change; such calls carry an idempotency key."""
        return self.method not in {"GET", "HEAD"}


def _path(*parts: str) -> str:
    for part in parts:
        # Quoting leaves dots as they are, servers take a quoted slash for one, and either would
        # lead to another operation.
        if part in {"", ".", ".."} or "/" in part:
            raise InvalidRequest(f"{part!r} is no name: give the name of an object")
    return "/".join((PREFIX, *(quote(part, safe="") for part in parts)))


def _get(*parts: str, query: Iterable[tuple[str, str | None]] = ()) -> Call:
    given = tuple((key, value) for key, value in query if value is not None)
    return Call(method="GET", path=_path(*parts), query=given)


def _send(
    method: str, *parts: str, json_body: object = None, document: Document | None = None
) -> Call:
    if document is not None:
        body = document.model_dump_json().encode()
    else:
        body = None if json_body is None else json.dumps(json_body).encode()
    return Call(method=method, path=_path(*parts), body=body, repeatable=method != "POST")


# --- the platform ------------------------------------------------------------------------------


def check_health() -> Call:
    """Whether the control plane answers; needs no token."""
    return Call(method="GET", path="/healthz", timeout_s=5.0)


def get_status() -> Call:
    """The parts of the platform and how they fare."""
    return _get("status")


def list_cells() -> Call:
    """The places where instances can run."""
    return _get("cells")


def get_cell(name: str) -> Call:
    """One cell with what is known about it."""
    return _get("cells", name)


def list_models() -> Call:
    """The model services of all projects that the token may see."""
    return _get("models")


def inspect_model(reference: str) -> Call:
    """What the headers of a model's files say; nothing is deployed and no weight is loaded."""
    return _get("models", "inspect", query=[("reference", reference)])


def list_weights() -> Call:
    """The weights of models on the platform's machine, and on their way there."""
    return _get("weights")


def fetch_weights(reference: str) -> Call:
    """Fetch weights ahead; answers at once with how far it is, so ask until they are there."""
    call = _send("POST", "weights", "fetch", json_body={"model": reference})
    return replace(call, repeatable=True)


def delete_weights(digest: str) -> Call:
    """Remove weights that nothing needs from the platform's machine."""
    return _send("DELETE", "weights", digest)


# --- projects and tokens -----------------------------------------------------------------------


def list_projects() -> Call:
    """All projects that the token may see."""
    return _get("projects")


def get_project(project: str) -> Call:
    """One project."""
    return _get("projects", project)


def put_project(project: str, *, policy: Sequence[str] = ()) -> Call:
    """Create a project, or change the presets that all its services must satisfy."""
    return _send("PUT", "projects", project, json_body={"policy": list(policy)})


def delete_project(project: str) -> Call:
    """Delete an empty project."""
    return _send("DELETE", "projects", project)


def list_files(project: str) -> Call:
    """The newest files of a project."""
    return _get("projects", project, "files")


def list_batches(project: str) -> Call:
    """The newest batches of a project."""
    return _get("projects", project, "batches")


def get_batch(project: str, batch_id: str) -> Call:
    """One batch."""
    return _get("projects", project, "batches", batch_id)


def cancel_batch(project: str, batch_id: str) -> Call:
    """Send nothing more of a batch."""
    call = _send("POST", "projects", project, "batches", batch_id, "cancel")
    return replace(call, repeatable=True)


def list_tokens() -> Call:
    """All tokens, without their secrets."""
    return _get("tokens")


def create_token(
    *,
    name: str = "token",
    project: str | None = None,
    scope: str = "inference",
    models: Sequence[str] = (),
    limits: Mapping[str, object] | None = None,
    expires_in_s: int | None = None,
) -> Call:
    """Make a token, for all models of the project or for some; it is shown in this answer only."""
    body = {
        "name": name,
        "project": project,
        "scope": scope,
        "models": list(models) or None,
        "limits": limits or None,
        "expires_in_s": expires_in_s,
    }
    return _send("POST", "tokens", json_body=body)


def limit_token(token_id: str, limits: Mapping[str, object]) -> Call:
    """Change how much a token may use; what is left out is not limited any more."""
    return _send("PUT", "tokens", token_id, "limits", json_body=limits)


def delete_token(token_id: str) -> Call:
    """Make a token invalid."""
    return _send("DELETE", "tokens", token_id)


# --- usage -------------------------------------------------------------------------------------


def get_usage(
    *,
    project: str | None = None,
    service: str | None = None,
    key: str | None = None,
    since: float | None = None,
    until: float | None = None,
    by: Sequence[str] = (),
) -> Call:
    """What requests of models used, added up by ``by``: model, project, key, day …"""
    which = _usage_query(project, service, key, since, until)
    return _get("usage", query=[*which, *(("by", each) for each in by)])


def list_usage_requests(  # noqa: PLR0913 - one argument per query parameter of the API
    *,
    project: str | None = None,
    service: str | None = None,
    key: str | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call:
    """One page of what single requests used; ``cursor`` is ``next`` of the page before."""
    which = _usage_query(project, service, key, since, until)
    pages = [("limit", None if limit is None else str(limit)), ("cursor", cursor)]
    return _get("usage", "requests", query=[*which, *pages])


def _usage_query(
    project: str | None,
    service: str | None,
    key: str | None,
    since: float | None,
    until: float | None,
) -> list[tuple[str, str | None]]:
    return [
        ("project", project),
        ("service", service),
        ("key", key),
        ("since", None if since is None else repr(float(since))),
        ("until", None if until is None else repr(float(until))),
    ]


# --- services ----------------------------------------------------------------------------------


def list_services(project: str | None = None) -> Call:
    """The services of one project, or of all."""
    return _get("services", query=[("project", project)])


def get_service(project: str, name: str) -> Call:
    """One service with its live instances."""
    return _get("projects", project, "services", name)


def put_service(project: str, name: str, definition: Document) -> Call:
    """Create a service, or deploy a new version of it; answers with the deployment."""
    return _send("PUT", "projects", project, "services", name, document=definition)


def delete_service(project: str, name: str) -> Call:
    """Stop and remove a service with all its deployments."""
    return _send("DELETE", "projects", project, "services", name)


def scale_service(project: str, name: str, instances: int | None) -> Call:
    """Run this many instances; 0 sleeps until the next request, None is automatic again."""
    call = _send(
        "POST", "projects", project, "services", name, "scale", json_body={"instances": instances}
    )
    return replace(call, repeatable=True)


def pause_service(project: str, name: str) -> Call:
    """Stop all instances and answer no request until ``resume_service``."""
    return replace(_send("POST", "projects", project, "services", name, "pause"), repeatable=True)


def resume_service(project: str, name: str) -> Call:
    """Undo ``pause_service``, and leave the number of instances to demand again."""
    return replace(_send("POST", "projects", project, "services", name, "resume"), repeatable=True)


def rollback_service(project: str, name: str, deployment: int | None = None) -> Call:
    """Make an earlier deployment the serving one; None: the last healthy one before this."""
    return _send(
        "POST",
        "projects",
        project,
        "services",
        name,
        "rollback",
        json_body={"deployment": deployment},
    )


def exec_command(
    project: str,
    name: str,
    command: Sequence[str],
    *,
    instance: str | None = None,
    timeout_s: float = 60.0,
) -> Call:
    """Run a command inside an instance and wait for its end."""
    body = {"command": list(command), "instance": instance, "timeout_s": timeout_s}
    call = _send("POST", "projects", project, "services", name, "exec", json_body=body)
    # The command may use all of its time before the first byte of the answer.
    return replace(call, timeout_s=timeout_s + USUAL_TIMEOUT_S)


def explain_service(project: str, name: str) -> Call:
    """Why a service is where it is, or why it is nowhere."""
    return _get("projects", project, "services", name, "why")


def list_deployments(project: str, name: str) -> Call:
    """All versions of a service."""
    return _get("projects", project, "services", name, "deployments")


def get_deployment(project: str, name: str, number: int) -> Call:
    """One version of a service."""
    return _get("projects", project, "services", name, "deployments", str(number))


def list_instances(project: str, name: str) -> Call:
    """The live instances of a service and those that ended lately."""
    return _get("projects", project, "services", name, "instances")


def list_events(project: str, name: str) -> Call:
    """What happened to a service, newest last."""
    return _get("projects", project, "services", name, "events")


def plan_services(project: str, services: Mapping[str, Document]) -> Call:
    """What deploying these definitions would change; nothing is changed."""
    bodies = {name: json.loads(body.model_dump_json()) for name, body in services.items()}
    call = _send("POST", "projects", project, "plan", json_body={"services": bodies})
    return replace(call, repeatable=True)


# --- aliases -----------------------------------------------------------------------------------


def list_aliases(project: str | None = None) -> Call:
    """The aliases of one project, or of all."""
    return _get("aliases", query=[("project", project)])


def get_alias(project: str, name: str) -> Call:
    """One alias: which model services answer under its name."""
    return _get("projects", project, "aliases", name)


def put_alias(  # noqa: PLR0913 - one argument per field of an alias
    project: str,
    name: str,
    *,
    targets: Sequence[tuple[str, int]],
    canaries: Sequence[tuple[str, str, str]] = (),
    fallbacks: Sequence[str] = (),
    first_token_s: float | None = None,
    between_tokens_s: float | None = None,
) -> Call:
    """Make an alias, or replace all that it says; it serves at once.

    ``targets`` are services with their share in per cent, ``canaries`` a header, its value and the
    service for requests that have it.
    """
    body = {
        "targets": [{"service": service, "percent": percent} for service, percent in targets],
        "canaries": [
            {"header": header, "value": value, "service": service}
            for header, value, service in canaries
        ],
        "fallbacks": list(fallbacks),
        "first_token_s": first_token_s,
        "between_tokens_s": between_tokens_s,
    }
    return _send("PUT", "projects", project, "aliases", name, json_body=body)


def delete_alias(project: str, name: str) -> Call:
    """Forget an alias; its services stay."""
    return _send("DELETE", "projects", project, "aliases", name)


# --- sources -----------------------------------------------------------------------------------


def check_source(digest: str) -> Call:
    """Whether an archive is there already (404: it is not)."""
    return Call(method="HEAD", path=_path("sources", digest))


def upload_source(digest: str, file: Path) -> Call:
    """Send the archive with this digest."""
    return Call(
        method="PUT",
        path=_path("sources", digest),
        file=file,
        content_type="application/gzip",
        timeout_s=UPLOAD_TIMEOUT_S,
    )


# --- streams -----------------------------------------------------------------------------------


def stream_logs(  # noqa: PLR0913 - one argument per query parameter of the API
    project: str,
    name: str,
    *,
    sources: Sequence[str] = (),
    since: float | None = None,
    follow: bool = False,
    instance: str | None = None,
    tail: int | None = None,
) -> Call:
    """The output of a service, one JSON object per line; with ``follow`` it does not end."""
    call = _get(
        "projects",
        project,
        "services",
        name,
        "logs",
        query=[
            *(("source", source) for source in sources),
            ("since", None if since is None else repr(float(since))),
            ("follow", "true" if follow else None),
            ("instance", instance),
            ("tail", None if tail is None else str(tail)),
        ],
    )
    timeout_s = None if follow else USUAL_TIMEOUT_S
    return replace(call, accept="application/x-ndjson", timeout_s=timeout_s)


def watch_services(project: str | None = None, service: str | None = None) -> Call:
    """Each change of a service, as server-sent events; does not end."""
    call = _get("watch", query=[("project", project), ("service", service)])
    return replace(call, accept="text/event-stream", timeout_s=None)
