"""What the HTTP API under ``/api/v1`` takes and gives, as pydantic models.

The API answers with these, the clients parse them, and the published OpenAPI document is made
from them. Requests refuse unknown keys; answers may grow new ones, so clients ignore what they
do not know.
"""

from decimal import Decimal
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)

from tramontane.domain.definition import WORKER_GRACE_S, Resources, Scaling, ServiceKind
from tramontane.domain.usage import EUROS_MAX

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"
"""Service and project names are DNS labels (RFC 1123), short enough to stay readable in a host."""
NAME_IN_WORDS = "a name of lower-case letters, digits and hyphens (at most 40, a letter first)"

BATCH_ID_PATTERN = r"^batch_[a-z0-9]{1,60}$"
HEADER_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"
RESERVED_HEADERS = ("x-tramontane-", "x-envoy-")
"""What begins so is the gateway's own: clients cannot send it."""
TOKEN_ID_PATTERN = r"^tok_[a-z0-9]{1,60}$"  # noqa: S105 - no secret
MODEL_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:/-]{0,126}[A-Za-z0-9])?$"
"""Of models and of other names that lead to one: what clients send as ``model``."""
PATTERNS_IN_WORDS = {
    NAME_PATTERN: NAME_IN_WORDS,
    BATCH_ID_PATTERN: "the id of a batch, such as batch_20mg7md4hrsehnn8",
    TOKEN_ID_PATTERN: "the id of a token, such as tok_20mg7md4hrsehnn8",
    MODEL_NAME_PATTERN: "the name of a model, such as assistant",
}

Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["hello"])]


MODEL_REFERENCE_MAX = 1024


def _unique(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


MODELS_MAX = 32

ModelName = Annotated[str, Field(pattern=MODEL_NAME_PATTERN, examples=["assistant"])]
ModelNames = Annotated[list[ModelName], Field(max_length=MODELS_MAX), AfterValidator(_unique)]


class Request(BaseModel):
    """A body that a client sends: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class View(BaseModel):
    """A body that the API answers with."""

    model_config = ConfigDict(frozen=True)


# --- what a service is asked to be -------------------------------------------------------------


class DirectorySourceBody(Request):
    """Source code that was uploaded under ``/api/v1/sources/{digest}``."""

    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ModelSourceBody(Request):
    """``tiny``, a path on the platform's machine, or ``hf://``, ``s3://`` or ``oci://``.

    What may move, such as a branch, is resolved when it is deployed, and answered so from then on.
    """

    model: Annotated[str, Field(min_length=1, max_length=MODEL_REFERENCE_MAX)]


def _require_inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ValueError("expected a directory below the one that is deployed")
    return path


class BuildBody(Request):
    """Overrides of what the build detects."""

    language: Literal["python", "node", "go", "rust", "java", "static", "procfile"] | None = None
    command: Annotated[str, Field(max_length=4096)] | None = None
    root: Annotated[str, Field(max_length=1024), AfterValidator(_require_inside)] = "."


class ProbeBody(Request):
    """When an instance counts as ready. With ``path`` it is an HTTP probe, else TCP.

    A worker is not asked: it is ready when it has run for ``grace_s``, 5 seconds if left out.
    """

    path: Annotated[str, Field(pattern=r"^/[\x21-\x7e]*$", max_length=1024)] | None = None
    grace_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    interval_s: Annotated[float, Field(ge=0.5, le=3600)] = 10.0
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 5.0
    failures_max: Annotated[int, Field(ge=1, le=100)] = 3


INSTANCES_MAX = Scaling().instances_max


class ScalingBody(Request):
    """How many instances, and on what demand.

    If ``max`` is left out it is at least ``min``. Nobody asks for a worker: ``min`` of them run, 1
    if left out, and ``max`` is ``min`` if left out. A model is scaled so that nearly all answers
    begin within ``first_token_s`` and keep a pace of ``between_tokens_s``, 2 s and 0.2 s if left
    out; ``concurrency`` is then at most what one instance is given.
    """

    min: Annotated[int, Field(ge=0, le=1000)] = 0
    max: Annotated[int, Field(ge=1, le=1000)] = INSTANCES_MAX
    concurrency: Annotated[float, Field(gt=0, le=100000)] = 20.0
    idle_s: Annotated[float, Field(ge=1, le=604800)] = 300.0
    first_token_s: Annotated[float, Field(ge=0.01, le=3600)] | None = None
    between_tokens_s: Annotated[float, Field(ge=0.001, le=60)] | None = None


class ResourcesBody(Request):
    """Limits of one instance. What is left out or null: of a model what it needs in its cell,
    otherwise 512 MiB and one core."""

    memory_bytes: Annotated[int, Field(ge=16 * 1024**2, le=2**50)] | None = None
    cpus: Annotated[float, Field(ge=0.01, le=1024)] | None = None
    processes_max: Annotated[int, Field(ge=4, le=65536)] = Resources.processes_max


class EngineBody(Request):
    """How a model is served. What is left out or null is chosen for the model and its cell."""

    context_tokens: Annotated[int, Field(ge=16, le=2**27)] | None = None
    """Per request, prompt and answer together; at most what the model was trained for."""
    parallel: Annotated[int, Field(ge=1, le=64)] | None = None
    """Requests that one instance computes at the same time."""


Euros = Annotated[
    Decimal,
    Field(ge=0, le=EUROS_MAX, decimal_places=9),
    PlainSerializer(lambda amount: f"{amount.normalize():f}", return_type=str, when_used="json"),
]
"""A decimal number; answered as text, so that no reader takes it for a binary fraction."""


class PriceBody(Request):
    """What tokens of a model cost, in euro per million."""

    prompt: Euros = Decimal(0)
    completion: Euros = Decimal(0)
    cached: Euros | None = None
    """Of the prompt, taken from the engine's cache; the same as the others if null."""


class EgressBody(Request):
    """One host that instances may reach."""

    host: Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 443


class DefinitionFields(Request):
    """Everything about a service that a new deployment can change, but for its variables.

    The kinds ``job`` and ``function`` are words of the product but not offered yet: refused.
    """

    kind: Literal["web", "worker", "job", "model", "function"] = "web"
    source: DirectorySourceBody | ModelSourceBody
    build: BuildBody = BuildBody()
    command: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    policy: list[Annotated[str, Field(max_length=64)]] = []
    probe: ProbeBody = ProbeBody()
    scaling: ScalingBody = ScalingBody()
    resources: ResourcesBody = ResourcesBody()
    engine: EngineBody = EngineBody()
    price: PriceBody | None = None
    """Null: requests share what the hour of their instance costs."""
    egress: Annotated[list[EgressBody], Field(max_length=256)] = []
    models: ModelNames = []
    """Models of the project that its instances may call, there yet or not."""
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30.0


def _dependent_defaults(given: dict[str, Any]) -> dict[str, Any]:
    is_worker = given.get("kind") == ServiceKind.WORKER.value
    filled: dict[str, Any] = {}
    scaling = _fields_given(given.get("scaling", {}))
    if scaling is not None:
        if is_worker:
            scaling.setdefault("min", 1)
        if isinstance(low := scaling.get("min"), int):
            scaling.setdefault("max", max(low, 1 if is_worker else INSTANCES_MAX))
        filled["scaling"] = scaling
    probe = _fields_given(given.get("probe", {}))
    if is_worker and probe is not None:
        filled["probe"] = {"grace_s": WORKER_GRACE_S} | probe
    resources = _fields_given(given.get("resources", {}))
    if resources is not None and given.get("kind") != ServiceKind.MODEL.value:
        usual = {"memory_bytes": Resources.memory_bytes, "cpus": Resources.cpus}
        given_at_all = {name: value for name, value in resources.items() if value is not None}
        filled["resources"] = usual | given_at_all
    return filled


def _fields_given(value: Any) -> dict[str, Any] | None:
    """Return the fields that were given of a part, as JSON or as a model; None if it is neither."""
    if isinstance(value, Request):
        return value.model_dump(exclude_unset=True)
    return dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else None


VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]


class DefinitionBody(DefinitionFields):
    """Everything about a service that a new deployment can change."""

    environment: dict[
        VariableName, Annotated[str, Field(max_length=65536, pattern=r"^[^\x00]*$")]
    ] = {}

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, value: Any) -> Any:
        """Fill in what was left out and whose default depends on another field."""
        if not isinstance(value, dict):
            return value
        given = cast("dict[str, Any]", value)
        return given | _dependent_defaults(given)


class ScaleRequest(Request):
    """``instances`` 0: sleep now, until the next request wakes it; a worker sleeps until it is
    scaled again. None: back to automatic."""

    instances: Annotated[int, Field(ge=0, le=1000)] | None


class RollbackRequest(Request):
    """``deployment`` is the number to go back to; None: the last healthy one before this."""

    deployment: Annotated[int, Field(ge=1)] | None = None


class ExecRequest(Request):
    """A command to run inside an instance."""

    command: Annotated[list[str], Field(min_length=1, max_length=256)]
    instance: str | None = None
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 60.0


def _require_free_header(name: str) -> str:
    if name.lower().startswith(RESERVED_HEADERS):
        raise ValueError("expected a header of your own, such as x-canary: this one is reserved")
    return name.lower()


class ShareBody(Request):
    """How much of what is asked under an alias goes to one model service."""

    service: Name
    percent: Annotated[int, Field(ge=1, le=100)] = 100


class CanaryBody(Request):
    """Requests with this header and value go to this model service."""

    header: Annotated[
        str,
        Field(pattern=HEADER_PATTERN, examples=["x-canary"]),
        AfterValidator(_require_free_header),
    ]
    value: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+$")]
    service: Name


class AliasBody(Request):
    """Which model services answer under one name, and when the next one is tried.

    Both times hold for streams only: of any other answer nothing is seen before its end. They run
    from the request on, so that waking a service counts.
    """

    targets: Annotated[list[ShareBody], Field(min_length=1, max_length=16)]
    canaries: Annotated[list[CanaryBody], Field(max_length=16)] = []
    fallbacks: Annotated[list[Name], Field(max_length=8)] = []
    """Tried in this order, before the first byte of the answer only."""
    first_token_s: Annotated[float, Field(ge=0.05, le=3600)] | None = None
    between_tokens_s: Annotated[float, Field(ge=0.05, le=3600)] | None = None

    @model_validator(mode="after")
    def _check_sums(self) -> Self:
        whole = sum(each.percent for each in self.targets)
        if whole != 100:
            raise ValueError(f"expected shares of targets that add up to 100, got {whole}")
        named = [each.service for each in self.targets]
        if len(set(named)) < len(named) or len(set(self.fallbacks)) < len(self.fallbacks):
            raise ValueError("expected each service once among targets, and once among fallbacks")
        first, between = self.first_token_s, self.between_tokens_s
        if first is not None and between is not None and between < first:
            raise ValueError(
                f"expected between_tokens_s of at least first_token_s ({first:g}), since a stream "
                f"is silent until its first token, got {between:g}"
            )
        return self


class ProjectRequest(Request):
    """Presets that every service of the project must satisfy, besides its own."""

    policy: list[Annotated[str, Field(max_length=64)]] = []


class LimitsRequest(Request):
    """How much a token may use; what is left out is not limited."""

    requests_per_minute: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tokens_per_minute: Annotated[int, Field(ge=1, le=10**12)] | None = None
    """Of prompts and answers together, counted when a request ends."""
    streams: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Requests at the same time."""
    budget_eur: (
        Annotated[Decimal, Field(gt=0, le=10**9, decimal_places=9, allow_inf_nan=False)] | None
    ) = None
    budget_period: Literal["day", "month"] = "day"
    """Begins at midnight UTC."""


class TokenRequest(Request):
    """A token for one project, or for all when ``project`` is None (administrators only).

    One with ``models`` calls these models of its project and no other, whether they are there yet
    or not; it is of scope inference, since any other would let its holder make further tokens.
    """

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]*$")] = "token"
    project: Name | None = None
    scope: Literal["inference", "read", "deploy", "admin"] = "inference"
    models: Annotated[ModelNames, Field(min_length=1)] | None = None
    limits: LimitsRequest | None = None
    expires_in_s: Annotated[int, Field(ge=60, le=10 * 365 * 86400)] | None = None


# --- what the API answers ----------------------------------------------------------------------


class DefinitionView(DefinitionFields):
    """A definition as it is shown: with the names of its variables, never their values.

    Null is no value that can be asked for, so what was read is not sent back by accident.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    environment: dict[VariableName, None] = {}


class InstanceView(View):
    """One running (or just ended) copy."""

    id: str
    status: str
    cell: str
    deployment: int
    reason: str
    message: str
    created_at: float
    ready_at: float | None = None
    pid: int | None = None


class DeploymentView(View):
    """One version and how it fared."""

    id: str
    service: str
    project: str
    number: int
    status: str
    reason: str
    message: str
    created_at: float
    serving: bool
    definition: DefinitionView
    warnings: list[str] = []
    """Said once, to whoever deploys it: models that it names and that are not there."""


class ServiceView(View):
    """What ``tram services get NAME -o json`` prints."""

    id: str
    project: str
    name: str
    kind: str
    status: str
    reason: str
    message: str
    url: str | None
    """Where it answers; None if it takes no requests."""
    generation: int
    deployment: int | None
    """Number of the deployment that should serve."""
    serving_deployment: int | None
    policy: list[str]
    """The service's own presets and its project's."""
    created_at: float
    instances: list[InstanceView]
    instances_min: int
    instances_max: int
    sizing: "SizingView | None" = None
    """Of a model that was prepared: what each instance gets, where it runs or would."""


class FactView(View):
    """One thing known about a cell, and how."""

    attribute: str
    value: str
    evidence: str
    source: str
    recorded_at: float
    valid_until: float | None = None


class AliasView(View):
    """What ``tram aliases get NAME -o json`` prints."""

    name: str
    project: str
    targets: list[ShareBody]
    canaries: list[CanaryBody]
    fallbacks: list[str]
    first_token_s: float | None
    between_tokens_s: float | None
    missing: list[str]
    """Services that it names and that were deleted since: they are skipped."""
    generation: int
    created_at: float


class CellView(View):
    """A place where instances can run."""

    id: str
    name: str
    runtime: str
    isolation: str
    reachable: bool
    memory_bytes: int
    cpus: float
    instances: int
    facts: list[FactView]


class FindingView(View):
    """One rule held against one cell."""

    rule: str
    """Such as ``eu.storage-and-processing``."""
    verdict: Literal["satisfied", "violated", "unknown"]
    reason: str


class SizePartView(View):
    """One term of what a model takes in memory."""

    name: str
    size_bytes: int
    how: str
    """Where the number comes from."""


class SizingView(View):
    """What one instance of a model gets in a cell, and how that was reckoned."""

    engine: str
    memory_bytes: int
    """Its limit: what it needs, with headroom; or what its user gave."""
    needed_bytes: int
    """The sum of the parts; 0 where the files say too little to tell."""
    cpus: float
    threads: int
    context_tokens: int
    """Per request, prompt and answer together."""
    parallel: int
    """Requests computed at the same time."""
    batch_tokens: int
    embeddings: bool
    prompt_cache_bytes: int
    """For prompts of earlier requests: what was given beyond what is needed."""
    parts: list[SizePartView]
    notes: list[str]
    """What is less than the model offers, and why."""


class CandidateView(View):
    """One cell that placement considered."""

    cell: str
    allowed: bool
    reason: str
    findings: list[FindingView]
    sizing: SizingView | None = None
    """Of a model whose files were looked at, if it can be there."""


class WhyView(View):
    """Why a service is where it is, or why it is nowhere."""

    project: str
    service: str
    status: str
    reason: str
    message: str
    policy: list[str]
    candidates: list[CandidateView]
    events: list["EventView"]


class EventView(View):
    """Something that happened to a service, newest last."""

    at: float
    subject: str
    """Id of the object: a deployment, an instance, or the service itself."""
    reason: str
    message: str


class LogLine(View):
    """One line of output."""

    at: float
    source: Literal["build", "runtime", "egress", "platform"]
    instance: str | None = None
    stream: str = "stdout"
    text: str


class ExecView(View):
    """How a command inside an instance ended; output is text, undecodable bytes replaced."""

    instance: str
    exit_code: int
    stdout: str
    stderr: str


class PlannedService(View):
    """What ``tram plan`` would change for one service, and where it may run."""

    name: str
    action: Literal["create", "update", "unchanged"]
    changes: list[str]
    candidates: list[CandidateView]
    placeable: bool
    problem: str | None = None
    """Why its model could not be looked at; then nothing is known of its size."""
    note: str | None = None
    """Why nothing is known of its model's size yet: its weights have to be fetched first."""
    models: list[str] = []
    """What it is bound to."""
    warnings: list[str] = []
    """What is allowed, and perhaps not meant: a model that is not there."""


class PlanRequest(Request):
    """Definitions as they would be deployed."""

    services: dict[Name, DefinitionBody]


class PlanView(View):
    """Nothing was changed; this is what would."""

    project: str
    services: list[PlannedService]


class ProjectView(View):
    """A workspace of services."""

    name: str
    policy: list[str]
    services: int
    created_at: float


class LimitsView(View):
    """How much a token may use; null is not limited."""

    requests_per_minute: int | None
    tokens_per_minute: int | None
    streams: int | None
    budget_eur: Decimal | None
    budget_period: str


class TokenView(View):
    """A token without its secret."""

    id: str
    name: str
    project: str | None
    scope: str
    created_at: float
    expires_at: float | None
    models: list[str] | None
    """The only models it may call; None: every model of its project."""
    limits: LimitsView | None = None
    """How much of them; None: as much as it likes."""
    last_used_at: float | None = None


class CreatedToken(TokenView):
    """``token`` is shown this once; the platform keeps only its hash."""

    token: str


class ModelFactsView(View):
    """The card of a model, from the headers of its files; null is what they do not say."""

    format: Literal["gguf", "safetensors"]
    size_bytes: int
    digest: str | None
    revision: str | None
    name: str | None
    architecture: str | None
    parameters: int | None
    quantisation: str | None
    licence: str | None
    origin_country: str | None
    """ISO 3166 code of the country where its maker has its seat."""
    context_length: int | None
    layers: int | None
    embedding_length: int | None
    feed_forward_length: int | None
    feed_forward_width: int | None
    attention_heads: int | None
    kv_heads: int | None
    kv_heads_total: int | None
    """Summed over the layers that keep keys and values."""
    key_length: int | None
    value_length: int | None
    sliding_window: int | None
    sliding_layers: int | None
    state_bytes: int | None
    vocabulary: int | None
    merges: int | None
    chat_template: bool | None
    tools: bool | None
    pooling: str | None
    causal: bool | None


class ModelView(View):
    """A model service as the inference API names it."""

    name: str
    project: str
    status: str
    url: str
    reference: str | None = None
    """Where its weights come from, pinned to what they were when it was deployed."""
    facts: ModelFactsView | None = None
    """Of the weights that serve, or will; null until they were looked at."""


class WeightsRequest(Request):
    """Weights to fetch ahead of a deployment: ``hf://``, ``s3://`` or ``oci://``."""

    model: Annotated[str, Field(min_length=1, max_length=MODEL_REFERENCE_MAX)]


class WeightsFileView(View):
    """One file of a model in the cache."""

    name: str
    size_bytes: int
    sha256: str


class WeightsView(View):
    """A model in the cache of this machine, or on its way there."""

    references: list[str]
    """Where it was fetched from, pinned."""
    digest: str | None
    """Of names and contents of all files; null while it is being fetched."""
    size_bytes: int
    done_bytes: int
    """How much of that is here."""
    files: list[WeightsFileView]
    used_by: list[str]
    """Services that need it, as ``project/name``; it stays as long as there are any."""
    used_at: float
    fetched_at: float | None


class PartView(View):
    """One part of the platform."""

    status: Literal["running", "starting", "stopped", "failed"]
    pid: int | None = None
    address: str | None = None
    message: str = ""
    started_at: float | None = None


class DiskView(View):
    """What the platform's things take up on disk, in bytes."""

    measured_at: float
    artifacts_bytes: int
    """What was built from sources, with the dependencies that it mounts."""
    toolchains_bytes: int
    caches_bytes: int
    """What makes builds quicker; it is kept below the limit of ``tram up --cache-limit``."""
    archives_bytes: int
    """Uploaded sources."""
    logs_bytes: int


class StatusView(View):
    """What ``tram status -o json`` prints."""

    version: str
    home: str
    control_plane: PartView
    gateway: PartView
    cells: list[CellView]
    services: dict[str, int]
    """Number of services by status."""
    egress_allowed: list[str]
    """What instances may reach of this machine and by name of its private networks, if a manifest
    names it: ``tram up --allow-egress-to``."""
    disk: DiskView | None = None
    """None until the platform has looked, soon after its start and from time to time."""


class SourceView(View):
    """An uploaded archive."""

    digest: str
    size_bytes: int


class Problem(View):
    """An error as RFC 9457 problem details; ``code`` is one of ``base.errors``."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    path: str | None = None
    """The field of the request that is wrong, as in ``services.hello.scaling.max``."""
    log: str | None = None
    """The tool's own last words, for failed builds."""
