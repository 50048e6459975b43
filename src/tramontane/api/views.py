"""From what the store reads to what the API answers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal

from tramontane.api.candidates import sizing_view
from tramontane.domain.alias import Alias
from tramontane.domain.batch import Batch
from tramontane.domain.cell import Cell
from tramontane.domain.definition import ModelSource
from tramontane.domain.deployment import Deployment
from tramontane.domain.files import ProjectFile
from tramontane.domain.ids import CellId, DeploymentId
from tramontane.domain.instance import Instance
from tramontane.domain.inventory import DiskUsage
from tramontane.domain.limits import Limits
from tramontane.domain.model import ModelFacts
from tramontane.domain.service import Service
from tramontane.domain.snapshot import Event
from tramontane.domain.usage import NANO
from tramontane.domain.weights import Weights
from tramontane.plan.needs import needs_of
from tramontane.store.projects import ProjectRecord
from tramontane.store.records import ServiceRecord
from tramontane.store.tokens import TokenRecord
from tramontane.wire.definitions import view_from_definition
from tramontane.wire.inference_schemas import BatchErrorView, BatchView, FileView
from tramontane.wire.schemas import (
    AliasView,
    CanaryBody,
    CellView,
    DeploymentView,
    DiskView,
    EventView,
    FactView,
    InstanceView,
    LimitsView,
    ModelFactsView,
    ModelView,
    ProjectView,
    ServiceView,
    ShareBody,
    SizingView,
    TokenView,
    WeightsFileView,
    WeightsView,
)


def service_view(record: ServiceRecord, url: str, cells: Mapping[CellId, Cell]) -> ServiceView:
    """Return a service with its live instances; ``cells`` are all there are, by id.

    ``url`` is where it answers, if it takes requests.
    """
    service = record.service
    desired = record.deployment(service.desired_deployment)
    serving = record.deployment(service.serving_deployment)
    # What serves has the address, also while what is to replace it has none.
    current = serving or desired
    kind = service.kind if current is None else current.definition.kind
    own = () if desired is None else desired.definition.policy
    scaling = None if desired is None else desired.definition.scaling
    numbers = {each.id: each.number for each in record.deployments}
    return ServiceView(
        id=service.id,
        project=service.project,
        name=service.name,
        kind=service.kind.value,
        status=service.status.value,
        reason=service.reason,
        message=service.message,
        url=url if kind.takes_requests else None,
        generation=service.generation,
        deployment=None if desired is None else desired.number,
        serving_deployment=None if serving is None else serving.number,
        policy=list(dict.fromkeys((*record.project_policy, *own))),
        created_at=service.created_at,
        instances=[instance_view(each, numbers, cells) for each in record.instances],
        instances_min=0 if scaling is None else scaling.instances_min,
        instances_max=0 if scaling is None else scaling.instances_max,
        sizing=None if current is None else _sizing(record, current, cells),
    )


def _sizing(
    record: ServiceRecord, deployment: Deployment, cells: Mapping[CellId, Cell]
) -> SizingView | None:
    """Return what each instance gets: in the cell of the oldest, or in the first without one."""
    if deployment.facts is None:
        return None
    ids = [each.cell_id for each in record.instances if each.deployment_id == deployment.id]
    cell = next((cells[each] for each in (*ids, *cells) if each in cells), None)
    if cell is None:
        return None
    sizing = needs_of(deployment.definition, deployment.facts, cell.capacity).sizing
    return None if sizing is None else sizing_view(sizing)


def instance_view(
    instance: Instance, numbers: Mapping[DeploymentId, int], cells: Mapping[CellId, Cell]
) -> InstanceView:
    """Return an instance; ``numbers`` are those of the service's deployments."""
    cell = cells.get(instance.cell_id)
    return InstanceView(
        id=instance.id,
        status=instance.status.value,
        cell=cell.name if cell is not None else instance.cell_id,
        deployment=numbers.get(instance.deployment_id, 0),
        reason=instance.reason,
        message=instance.message,
        created_at=instance.created_at,
        ready_at=instance.ready_at,
        pid=instance.pid,
    )


def deployment_view(
    service: Service,
    deployment: Deployment,
    message: str | None = None,
    warnings: Sequence[str] = (),
) -> DeploymentView:
    """Return a deployment; ``message`` replaces its own."""
    return DeploymentView(
        id=deployment.id,
        service=service.name,
        project=service.project,
        number=deployment.number,
        status=deployment.status.value,
        reason=deployment.reason,
        message=deployment.message if message is None else message,
        created_at=deployment.created_at,
        serving=deployment.id == service.serving_deployment,
        definition=view_from_definition(deployment.definition),
        warnings=list(warnings),
    )


def alias_view(alias: Alias, models: Collection[str]) -> AliasView:
    """Return an alias; ``models`` are the model services that its project has."""
    definition = alias.definition
    return AliasView(
        name=alias.name,
        project=alias.project,
        targets=[ShareBody.model_validate(asdict(each)) for each in definition.targets],
        canaries=[CanaryBody.model_validate(asdict(each)) for each in definition.canaries],
        fallbacks=list(definition.fallbacks),
        first_token_s=definition.first_token_s,
        between_tokens_s=definition.between_tokens_s,
        missing=[each for each in definition.services if each not in models],
        generation=alias.generation,
        created_at=alias.created_at,
    )


def model_view(record: ServiceRecord, url: str) -> ModelView:
    """Return a model service with the facts of its weights, as they were when it was prepared."""
    service = record.service
    deployment = record.deployment(service.serving_deployment) or record.deployment(
        service.desired_deployment
    )
    artifact = None if deployment is None else deployment.artifact
    source = None if deployment is None else deployment.definition.source
    facts = None if artifact is None else artifact.facts
    return ModelView(
        name=service.name,
        project=service.project,
        status=service.status.value,
        url=url,
        reference=source.reference if isinstance(source, ModelSource) else None,
        facts=None if facts is None else facts_view(facts),
    )


def facts_view(facts: ModelFacts) -> ModelFactsView:
    """Return the card of a model."""
    return ModelFactsView.model_validate(asdict(facts))


def weights_view(weights: Weights, project: str | None) -> WeightsView:
    """Return weights with those of their users that a token for ``project`` may know of."""
    known = "" if project is None else f"{project}/"
    return WeightsView(
        references=list(weights.references),
        digest=weights.digest,
        size_bytes=weights.size_bytes,
        done_bytes=weights.done_bytes,
        files=[WeightsFileView.model_validate(asdict(each)) for each in weights.files],
        used_by=[each for each in weights.used_by if each.startswith(known)],
        used_at=weights.used_at,
        fetched_at=weights.fetched_at,
    )


def event_view(event: Event) -> EventView:
    """Return one thing that happened."""
    return EventView(at=event.at, subject=event.subject, reason=event.reason, message=event.message)


def cell_view(cell: Cell, instances: int) -> CellView:
    """Return a cell with the number of its live instances."""
    return CellView(
        id=cell.id,
        name=cell.name,
        runtime=cell.runtime,
        isolation=cell.isolation,
        reachable=cell.reachable,
        memory_bytes=cell.capacity.memory_bytes,
        cpus=cell.capacity.cpus,
        instances=instances,
        facts=[
            FactView(
                attribute=fact.attribute,
                value=fact.value,
                evidence=fact.evidence.value,
                source=fact.source,
                recorded_at=fact.recorded_at,
                valid_until=fact.valid_until,
            )
            for fact in cell.facts
        ],
    )


def disk_view(usage: DiskUsage) -> DiskView:
    """Return what the platform's things take up."""
    return DiskView(
        measured_at=usage.at,
        artifacts_bytes=usage.artifacts,
        toolchains_bytes=usage.toolchains,
        caches_bytes=usage.caches,
        archives_bytes=usage.archives,
        logs_bytes=usage.logs,
    )


def project_view(record: ProjectRecord) -> ProjectView:
    """Return a project with the number of its services."""
    return ProjectView(
        name=record.project.name,
        policy=list(record.project.policy),
        services=record.services,
        created_at=record.project.created_at,
    )


def limits_view(limits: Limits | None) -> LimitsView | None:
    """Return how much a token may use."""
    if limits is None:
        return None
    budget = limits.budget
    return LimitsView(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        streams=limits.streams,
        budget_eur=None if budget is None else Decimal(budget) / NANO,
        budget_period=limits.budget_period.value,
    )


def file_view(file: ProjectFile) -> FileView:
    """Return a file without its content."""
    return FileView(
        id=file.id,
        name=file.name,
        purpose=file.purpose,
        size_bytes=file.size_bytes,
        lines=file.lines,
        created_at=file.created_at,
        expires_at=file.expires_at,
    )


def batch_view(batch: Batch) -> BatchView:
    """Return a batch and how far it is."""
    return BatchView(
        id=batch.id,
        status=batch.status.value,
        endpoint=batch.endpoint,
        key_id=batch.key_id,
        total=batch.total,
        succeeded=batch.succeeded,
        failed=batch.failed,
        errors=[
            BatchErrorView(code=each.code, message=each.message, line=each.line)
            for each in batch.errors
        ],
        input_files=list(batch.input_files),
        output_file=batch.output_file,
        error_file=batch.error_file,
        created_at=batch.created_at,
        expires_at=batch.expires_at,
    )


def token_view(record: TokenRecord) -> TokenView:
    """Return a token without its secret."""
    token = record.token
    return TokenView(
        id=token.id,
        name=token.name,
        project=token.project,
        scope=token.scope.name.lower(),
        created_at=token.created_at,
        expires_at=token.expires_at,
        models=None if token.models is None else list(token.models),
        limits=limits_view(token.limits),
        last_used_at=record.last_used_at,
    )
