"""``tramontane.yaml``: what a user keeps beside the source, and what it asks of the platform.

``read_manifest`` turns the file into services whose definitions lack only their source, which the
caller adds once it is packed. Every mistake is one ``InvalidRequest`` that lists all problems,
each with its path, what was expected and what was given. Called by the command line.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from tramontane.base.errors import InvalidRequest
from tramontane.domain.definition import ServiceKind
from tramontane.wire.alias_forms import CANARY_FORM, parse_canary
from tramontane.wire.kinds import find_unfit
from tramontane.wire.manifest_form import ManyForm, PriceForm, ServiceForm, SingleForm
from tramontane.wire.manifest_problems import (
    Problem,
    form_problem,
    invalid,
    kind_of,
    limit_problem,
    unfit_problem,
)
from tramontane.wire.schemas import (
    NAME_IN_WORDS,
    AliasBody,
    DefinitionBody,
    DirectorySourceBody,
    ModelSourceBody,
    Name,
)
from tramontane.wire.strict_yaml import Path, load_yaml, quoted

MANIFEST_NAME = "tramontane.yaml"
SCHEMA_FILE = "tramontane.schema.json"
NOBODY: frozenset[str | None] = frozenset()
_NO_SOURCE = DirectorySourceBody(digest="sha256:" + "0" * 64)


@dataclass(frozen=True)
class ManifestService:
    """One service of a manifest; ``name`` None means: named by the caller."""

    name: str | None
    definition: DefinitionBody
    """With the model as its source, or with a source that ``with_source`` replaces."""
    implied_worker: bool = False
    """It is a worker because its source says so and the manifest says nothing."""

    @property
    def needs_source(self) -> bool:
        """Whether a directory must be packed for this service."""
        return isinstance(self.definition.source, DirectorySourceBody)

    def with_source(self, digest: str) -> DefinitionBody:
        """Return the definition for this uploaded archive; a model needs none."""
        if not self.needs_source:
            return self.definition
        return self.definition.model_copy(update={"source": DirectorySourceBody(digest=digest)})


@dataclass(frozen=True)
class Manifest:
    """What one file asks for."""

    project: str | None
    services: tuple[ManifestService, ...]
    aliases: Mapping[str, AliasBody] = field(default_factory=dict[str, AliasBody])


KindOfSource = Callable[[str], ServiceKind]
"""Takes a directory below the one that is deployed; returns what kind of service its source is."""


def read_manifest(
    raw: bytes,
    file_name: str = MANIFEST_NAME,
    kind_of_source: KindOfSource = lambda _: ServiceKind.WEB,
) -> Manifest:
    """Return what the file asks for. Raises nothing but ``InvalidRequest``.

    ``kind_of_source`` is asked about services of which the file says neither kind nor command.
    """
    document = load_yaml(raw, file_name, _is_text)
    if document is None:
        raise InvalidRequest(f"{file_name} is empty: see docs/manifest.md")
    if not isinstance(document, dict):
        raise InvalidRequest(
            f"{file_name}: expected keys such as `name: hello`, got {kind_of(document)}"
        )
    value = cast("dict[str, Any]", document)
    many = "services" in value
    form, problems = _check_form(value, ManyForm if many else SingleForm)
    services: list[ManifestService] = []
    project: str | None = None
    aliases: dict[str, AliasBody] = {}
    if form is not None:
        project = form.project
        form, workers = _with_workers(form, kind_of_source)
        found = _services(form, problems)
        services = [replace(each, implied_worker=each.name in workers) for each in found]
        aliases = _aliases(form, problems) if isinstance(form, ManyForm) else {}
    if problems:
        raise invalid(file_name, problems)
    return Manifest(project=project, services=tuple(services), aliases=aliases)


def manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema of the file as shipped, for editors."""
    text = resources.files("tramontane.wire").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))


def make_manifest_schema() -> dict[str, Any]:
    """Return the JSON Schema as the models give it; a test holds the shipped file to it."""
    schema = TypeAdapter[Any](SingleForm | ManyForm).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": MANIFEST_NAME,
        **schema,
    }


def _is_text(path: Path) -> bool:
    """Values of variables and prices stay as written: ``1.10`` is a version, ``NO`` a country."""
    match path:
        case ("env" | "price", _) | ("services", _, "env" | "price", _):
            return True
        case _:
            return False


def _check_form(
    value: dict[str, Any], form: type[SingleForm] | type[ManyForm]
) -> tuple[SingleForm | ManyForm | None, list[Problem]]:
    """Return the form of what is right in the file, and what is wrong with the rest.

    Wrong parts are taken out and the rest is checked on, so that one run shows all mistakes.
    """
    problems: list[Problem] = []
    while True:
        try:
            return form.model_validate(value), problems
        except ValidationError as error:
            details = _details(error)
        # What is missing in the second round was taken out by the first.
        problems.extend(
            form_problem(each, form)
            for each in details
            if each["type"] != "missing" or not problems
        )
        pruned = _without(value, [each["loc"] for each in details])
        if pruned == value:
            return None, problems
        value = pruned


def _without(value: dict[str, Any], paths: Iterable[Sequence[str | int]]) -> dict[str, Any]:
    """Return the document without the parts at these paths; the original stays whole."""
    for path in paths:
        value = _without_one(value, path)
    return value


def _without_one(value: dict[str, Any], path: Sequence[str | int]) -> dict[str, Any]:
    if not path:
        return value
    result = dict(value)
    step, rest = str(path[0]), path[1:]
    inside = result.get(step)
    # An error inside a list takes the whole list out: positions must not shift.
    if isinstance(inside, dict) and rest and isinstance(rest[0], str):
        result[step] = _without_one(cast("dict[str, Any]", inside), rest)
    else:
        result.pop(step, None)
    return result


# --- from the form to the wire -----------------------------------------------------------------


def _with_workers(
    form: SingleForm | ManyForm, kind_of_source: KindOfSource
) -> tuple[SingleForm | ManyForm, frozenset[str | None]]:
    """Return the form with what its sources say of kinds, and the names of these workers."""

    def is_worker(service: ServiceForm) -> bool:
        says_nothing = service.kind is None and service.model is None and service.run is None
        return says_nothing and kind_of_source(service.build.root) is ServiceKind.WORKER

    kind = {"kind": ServiceKind.WORKER.value}
    if isinstance(form, SingleForm):
        alone = is_worker(form)
        return (form.model_copy(update=kind), frozenset({form.name})) if alone else (form, NOBODY)
    workers = frozenset(name for name, service in form.services.items() if is_worker(service))
    services = {
        name: service.model_copy(update=kind) if name in workers else service
        for name, service in form.services.items()
    }
    return form.model_copy(update={"services": services}), workers


def _services(form: SingleForm | ManyForm, problems: list[Problem]) -> list[ManifestService]:
    if form.project is not None:
        _check_name("project", form.project, problems)
    if isinstance(form, SingleForm):
        if form.name is not None:
            _check_name("name", form.name, problems)
        definition = _definition(form, (), "", problems)
        return [] if definition is None else [ManifestService(form.name, definition)]
    if not form.services:
        problems.append(Problem("services", "expected at least one service, got none"))
    found: list[ManifestService] = []
    for name, service in form.services.items():
        _check_name(f"services.{quoted(name)}", name, problems)
        shared = tuple(form.policy)
        definition = _definition(service, shared, f"services.{quoted(name)}", problems)
        if definition is not None:
            found.append(ManifestService(name, definition))
    return found


def _aliases(form: ManyForm, problems: list[Problem]) -> dict[str, AliasBody]:
    found: dict[str, AliasBody] = {}
    for name, alias in form.aliases.items():
        path = f"aliases.{quoted(name)}"
        _check_name(path, name, problems)
        if name in form.services:
            problems.append(Problem(path, "expected another name: a service has this one"))
        canaries = [parse_canary(each) for each in alias.canary]
        if None in canaries:
            problems.append(Problem(f"{path}.canary", f"expected {CANARY_FORM}"))
        body = _given(
            targets=[{"service": each, "percent": part} for each, part in alias.to.items()],
            canaries=[
                {"header": each[0], "value": each[1], "service": each[2]}
                for each in canaries
                if each is not None
            ],
            fallbacks=alias.fallback,
            first_token_s=alias.first_token,
            between_tokens_s=alias.between_tokens,
        )
        try:
            found[name] = AliasBody.model_validate(body)
        except ValidationError as error:
            problems.extend(_alias_problem(path, each) for each in _details(error))
    return found


def _alias_problem(path: str, error: ErrorDetails) -> Problem:
    if not error["loc"]:  # of the alias as a whole, which the message tells more of
        return Problem(path, error["msg"].removeprefix("Value error, "))
    found = limit_problem(error)
    return Problem(f"{path}.{found.path}", found.text)


def _check_name(path: str, name: str, problems: list[Problem]) -> None:
    try:
        TypeAdapter[str](Name).validate_python(name)
    except ValidationError:
        problems.append(Problem(path, f'expected {NAME_IN_WORDS}, got "{quoted(name)}"'))


def _definition(
    form: ServiceForm, shared_policy: Sequence[str], prefix: str, problems: list[Problem]
) -> DefinitionBody | None:
    body, own_problems = _body(form, shared_policy)
    definition = None
    try:
        definition = DefinitionBody.model_validate(body)
        own_problems.extend(unfit_problem(*each) for each in find_unfit(definition))
    except ValidationError as error:
        own_problems.extend(limit_problem(each) for each in _details(error))
    problems.extend(
        Problem(f"{prefix}.{each.path}" if prefix else each.path, each.text)
        for each in own_problems
    )
    return None if own_problems else definition


def _body(form: ServiceForm, shared_policy: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []
    kind = form.kind or ("web" if form.model is None else "model")
    if kind == "model" and form.model is None:
        problems.append(Problem("model", "is missing; a service of kind model names its weights"))
    if kind != "model" and form.model is not None:
        problems.append(Problem("kind", f'expected model, since one is named, got "{kind}"'))
    source = _NO_SOURCE if form.model is None else ModelSourceBody.model_construct(model=form.model)
    scaling = _given(
        min=form.scale.min,
        max=form.scale.max,
        concurrency=form.scale.concurrency,
        idle_s=form.scale.idle,
        first_token_s=form.scale.first_token,
        between_tokens_s=form.scale.between_tokens,
    )
    low, high = form.scale.min, form.scale.max
    if low is not None and high is not None and low > high:
        problems.append(Problem("scale.min", f"expected at most scale.max ({high}), got {low}"))
    body = _given(
        kind=kind,
        source=source.model_dump(),
        build=_given(
            language=form.build.language, command=form.build.command, root=form.build.root
        ),
        command=form.run,
        environment=form.env,
        policy=list(dict.fromkeys([*shared_policy, *form.policy])),
        probe=_given(
            path=form.probe.path,
            grace_s=form.probe.grace,
            interval_s=form.probe.interval,
            timeout_s=form.probe.timeout,
            failures_max=form.probe.failures,
        ),
        scaling=scaling,
        resources=_given(
            memory_bytes=form.resources.memory,
            cpus=form.resources.cpu,
            processes_max=form.resources.processes,
        ),
        engine=_given(context_tokens=form.engine.context, parallel=form.engine.parallel),
        price=_price(form.price),
        egress=[egress_body(each) for each in form.egress],
        models=form.models,
        drain_s=form.drain,
    )
    return body, problems


def _price(form: PriceForm) -> dict[str, Any] | None:
    """Return what is said of the price; None if nothing is, which is not the price 0."""
    price = _given(prompt=form.prompt, completion=form.completion, cached=form.cached)
    return price or None


def _given(**values: object) -> dict[str, Any]:
    """Return what is not None: for the rest the API's defaults hold."""
    return {key: value for key, value in values.items() if value is not None}


def egress_body(text: str) -> dict[str, Any]:
    """Return the wire form of ``host`` or ``host:port``; the API's limits are not applied here."""
    host, colon, port = text.rpartition(":")
    if colon and port.isascii() and port.isdigit() and len(port) <= 9:
        return {"host": host.lower(), "port": int(port)}
    return {"host": text.lower()}


def checked_definition(body: dict[str, Any], what: str) -> DefinitionBody:
    """Return the definition, or say which value of ``what`` is out of its limits."""
    try:
        definition = DefinitionBody.model_validate(body)
    except ValidationError as error:
        raise invalid(what, [limit_problem(each) for each in _details(error)]) from error
    if problems := [unfit_problem(*each) for each in find_unfit(definition)]:
        raise invalid(what, problems)
    return definition


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=True)
