"""The form of ``tramontane.yaml``: its keys, their types and what they are for.

Only types and keys are checked here. The limits of values are those of ``wire.schemas``, which
``wire.manifest`` applies afterwards, so that file and API never disagree. The published JSON
Schema is made from these models.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from tramontane.wire.kinds import refuse_kind
from tramontane.wire.quantities import (
    DURATION_FORM,
    DURATION_PATTERN,
    EUROS_FORM,
    EUROS_PATTERN,
    SIZE_FORM,
    SIZE_PATTERN,
    parse_duration_s,
    parse_size_bytes,
)
from tramontane.wire.schemas import NAME_PATTERN


def _duration(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    seconds = parse_duration_s(value) if isinstance(value, str) else None
    if seconds is None:
        raise PydanticCustomError("form", DURATION_FORM)
    return seconds


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    size = parse_size_bytes(value) if isinstance(value, str) else None
    if size is None:
        raise PydanticCustomError("form", SIZE_FORM)
    return size


def _euros(value: Any) -> Any:
    """Take the text of a number as it is written: no binary fraction comes in between."""
    if not isinstance(value, str) or not re.fullmatch(EUROS_PATTERN, value):
        raise PydanticCustomError("form", EUROS_FORM)
    return value


def _listed(value: Any) -> Any:
    """Take one word where a list of words is meant."""
    return [value] if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    """Take one service where shares are meant."""
    return {value: 100} if isinstance(value, str) else value


def _probe(value: Any) -> Any:
    """Take a path where nothing else about the probe is said."""
    return {"path": value} if isinstance(value, str) else value


def _kind(value: Any) -> Any:
    refusal = refuse_kind(value) if isinstance(value, str) else ""
    if refusal:
        raise PydanticCustomError("not_offered", "{refusal}", {"refusal": refusal})
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": DURATION_PATTERN},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]}
    ),
]
Euros = Annotated[
    str,
    BeforeValidator(_euros),
    WithJsonSchema(
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": EUROS_PATTERN}]}
    ),
]
Names = Annotated[
    list[str],
    BeforeValidator(_listed),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
EnvironmentValue = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


class Form(BaseModel):
    """Unknown keys are errors, and no value is silently turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BuildForm(Form):
    """How the source becomes something that runs; what is left out is detected."""

    language: Annotated[
        Literal["python", "node", "go", "rust", "java", "static", "procfile"] | None,
        Field(description="Instead of detecting it from the files."),
    ] = None
    command: Annotated[
        str | None, Field(description="Runs instead of the language's usual build.")
    ] = None
    root: Annotated[
        str, Field(description="The directory to build, below the one that is deployed.")
    ] = "."


class ProbeForm(Form):
    """When an instance counts as ready, and when it no longer does."""

    path: Annotated[
        str | None,
        Field(description="Asked over HTTP: 200-399 is healthy. Without it: accepts connections."),
    ] = None
    grace: Annotated[
        Duration | None,
        Field(
            description="Ready within this time, or the start has failed; a worker is ready when "
            "it has run for so long."
        ),
    ] = None
    interval: Annotated[Duration | None, Field(description="Between two probes.")] = None
    timeout: Annotated[Duration | None, Field(description="For one answer.")] = None
    failures: Annotated[
        int | None, Field(description="So many in a row make an instance unhealthy.")
    ] = None


class ScaleForm(Form):
    """Between how many instances, and on what demand, the service moves."""

    min: Annotated[
        int | None,
        Field(description="0 lets the service sleep when idle; a worker needs at least 1."),
    ] = None
    max: Annotated[int | None, Field(description="Never more instances than this.")] = None
    concurrency: Annotated[
        float | None, Field(description="Requests in progress that one instance should carry.")
    ] = None
    idle: Annotated[
        Duration | None, Field(description="Without a request for this long, go to zero.")
    ] = None
    first_token: Annotated[
        Duration | None, Field(description="Of a model: nearly all answers begin within this time.")
    ] = None
    between_tokens: Annotated[
        Duration | None, Field(description="Of a model: the pace that answers keep.")
    ] = None


class ResourcesForm(Form):
    """Limits of one instance; of a model they are reckoned if left out."""

    memory: Annotated[Size | None, Field(description="Such as 512MiB.")] = None
    cpu: Annotated[float | None, Field(description="Cores; 0.5 is half of one.")] = None
    processes: Annotated[int | None, Field(description="At most so many processes.")] = None


class EngineForm(Form):
    """How a model is served; what is left out is chosen for the model and its cell."""

    context: Annotated[
        int | None, Field(description="Tokens per request, prompt and answer together.")
    ] = None
    parallel: Annotated[
        int | None, Field(description="Requests that one instance computes at the same time.")
    ] = None


class PriceForm(Form):
    """What tokens of a model cost, in euro per million."""

    prompt: Annotated[Euros | None, Field(description="Of what is sent. Default: nothing.")] = None
    completion: Annotated[
        Euros | None, Field(description="Of what is answered. Default: nothing.")
    ] = None
    cached: Annotated[
        Euros | None,
        Field(description="Of what is sent and was in the cache. Default: as the rest of it."),
    ] = None


class ServiceForm(Form):
    """One service."""

    kind: Annotated[
        Literal["web", "worker", "model"] | None,
        BeforeValidator(_kind),
        Field(description="`web` by default; `model` if a model is named."),
    ] = None
    model: Annotated[
        str | None,
        Field(description="Serve these weights: `tiny`, a file, `hf://`, `s3://` or `oci://`."),
    ] = None
    build: BuildForm = BuildForm()
    run: Annotated[
        str | None,
        Field(description="The command that starts the service, instead of the detected one."),
    ] = None
    env: Annotated[
        dict[str, EnvironmentValue],
        Field(description="Environment variables; values are taken as they are written."),
    ] = {}
    policy: Annotated[
        Names, Field(description="Residency presets that must all hold, such as `eu`.")
    ] = []
    probe: Annotated[ProbeForm, BeforeValidator(_probe)] = ProbeForm()
    scale: ScaleForm = ScaleForm()
    resources: ResourcesForm = ResourcesForm()
    engine: EngineForm = EngineForm()
    price: PriceForm = PriceForm()
    egress: Annotated[
        list[str],
        Field(description="Hosts that may be reached, as `host` or `host:port` (default 443)."),
    ] = []
    models: Annotated[
        Names,
        Field(
            description="Models of the project that it calls: it gets `OPENAI_BASE_URL` and "
            "`OPENAI_API_KEY`."
        ),
    ] = []
    drain: Annotated[
        Duration | None,
        Field(
            description="Requests in progress may run on this long at a stop; a worker has so long "
            "to end."
        ),
    ] = None


Name = Annotated[str, Field(json_schema_extra={"pattern": NAME_PATTERN})]


class SingleForm(ServiceForm):
    """A manifest for one service: its keys stand at the top level."""

    project: Annotated[Name | None, Field(description="`default` if left out.")] = None
    name: Annotated[Name | None, Field(description="The directory's name if left out.")] = None


class AliasForm(Form):
    """A name under which several models are asked for."""

    to: Annotated[
        dict[str, int],
        BeforeValidator(_whole),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "object", "additionalProperties": {"type": "integer"}},
                ]
            }
        ),
        Field(description="A model service, or several with their shares in per cent."),
    ]
    canary: Annotated[
        Names, Field(description="Requests with a header, as `x-canary=yes:large`.")
    ] = []
    fallback: Annotated[Names, Field(description="Model services to try next, in order.")] = []
    first_token: Annotated[
        Duration | None, Field(description="A stream that has not begun by then falls back.")
    ] = None
    between_tokens: Annotated[
        Duration | None, Field(description="A stream that is silent for so long has failed.")
    ] = None


class ManyForm(Form):
    """A manifest for several services of one project."""

    project: Annotated[Name | None, Field(description="`default` if left out.")] = None
    policy: Annotated[
        Names, Field(description="Presets that every service below must satisfy as well.")
    ] = []
    services: Annotated[dict[Name, ServiceForm], Field(description="Services by name.")]
    aliases: Annotated[
        dict[Name, AliasForm], Field(description="Names under which several models are asked for.")
    ] = {}
