"""Between the wire's definitions and the domain's ``Definition``: called by the API."""

from decimal import Decimal

from tramontane.domain.definition import (
    BuildOptions,
    Definition,
    DirectorySource,
    EgressRule,
    EngineOptions,
    ModelSource,
    Probe,
    ProbeKind,
    ResourceWishes,
    Scaling,
    ServiceKind,
    Source,
)
from tramontane.domain.usage import Price
from tramontane.wire.schemas import (
    BuildBody,
    DefinitionBody,
    DefinitionView,
    DirectorySourceBody,
    EgressBody,
    EngineBody,
    ModelSourceBody,
    PriceBody,
    ProbeBody,
    ResourcesBody,
    ScalingBody,
)


def definition_from_body(body: DefinitionBody) -> Definition:
    """Return the domain value of a request body that pydantic has already accepted."""
    source: Source
    match body.source:
        case DirectorySourceBody(digest=digest):
            source = DirectorySource(digest=digest)
        case ModelSourceBody(model=model):
            source = ModelSource(reference=model)
    return Definition(
        kind=ServiceKind(body.kind),
        source=source,
        build=BuildOptions(
            language=body.build.language, command=body.build.command, root=body.build.root
        ),
        command=body.command,
        environment=tuple(sorted(body.environment.items())),
        policy=tuple(body.policy),
        probe=Probe(
            kind=_probe_kind(body),
            path=body.probe.path or "/",
            grace_s=body.probe.grace_s,
            interval_s=body.probe.interval_s,
            timeout_s=body.probe.timeout_s,
            failures_max=body.probe.failures_max,
        ),
        scaling=Scaling(
            instances_min=body.scaling.min,
            instances_max=body.scaling.max,
            concurrency=body.scaling.concurrency,
            idle_s=body.scaling.idle_s,
            first_token_s=body.scaling.first_token_s,
            between_tokens_s=body.scaling.between_tokens_s,
        ),
        resources=ResourceWishes(
            memory_bytes=body.resources.memory_bytes,
            cpus=body.resources.cpus,
            processes_max=body.resources.processes_max,
        ),
        engine=EngineOptions(
            context_tokens=body.engine.context_tokens, parallel=body.engine.parallel
        ),
        price=None if body.price is None else _price(body.price),
        egress=tuple(EgressRule(host=rule.host, port=rule.port) for rule in body.egress),
        models=tuple(body.models),
        drain_s=body.drain_s,
    )


def _price(body: PriceBody) -> Price:
    return Price(
        prompt=int(body.prompt.scaleb(9)),
        completion=int(body.completion.scaleb(9)),
        cached=None if body.cached is None else int(body.cached.scaleb(9)),
    )


def _price_body(price: Price) -> PriceBody:
    return PriceBody(
        prompt=_euros(price.prompt),
        completion=_euros(price.completion),
        cached=None if price.cached is None else _euros(price.cached),
    )


def _euros(billionths: int) -> Decimal:
    return Decimal(billionths).scaleb(-9)


def _probe_kind(body: DefinitionBody) -> ProbeKind:
    if not ServiceKind(body.kind).takes_requests:
        return ProbeKind.NONE
    return ProbeKind.TCP if body.probe.path is None else ProbeKind.HTTP


def body_from_definition(definition: Definition) -> DefinitionBody:
    """Return the wire form; ``definition_from_body`` takes it back unchanged."""
    match definition.source:
        case DirectorySource(digest=digest):
            source: DirectorySourceBody | ModelSourceBody = DirectorySourceBody(digest=digest)
        case ModelSource(reference=reference):
            source = ModelSourceBody(model=reference)
    probe = definition.probe
    return DefinitionBody(
        kind=definition.kind.value,
        source=source,
        build=BuildBody.model_validate(
            {
                "language": definition.build.language,
                "command": definition.build.command,
                "root": definition.build.root,
            }
        ),
        command=definition.command,
        environment=dict(definition.environment),
        policy=list(definition.policy),
        probe=ProbeBody(
            path=probe.path if probe.kind is ProbeKind.HTTP else None,
            grace_s=probe.grace_s,
            interval_s=probe.interval_s,
            timeout_s=probe.timeout_s,
            failures_max=probe.failures_max,
        ),
        scaling=ScalingBody(
            min=definition.scaling.instances_min,
            max=definition.scaling.instances_max,
            concurrency=definition.scaling.concurrency,
            idle_s=definition.scaling.idle_s,
            first_token_s=definition.scaling.first_token_s,
            between_tokens_s=definition.scaling.between_tokens_s,
        ),
        resources=ResourcesBody(
            memory_bytes=definition.resources.memory_bytes,
            cpus=definition.resources.cpus,
            processes_max=definition.resources.processes_max,
        ),
        engine=EngineBody(
            context_tokens=definition.engine.context_tokens, parallel=definition.engine.parallel
        ),
        price=None if definition.price is None else _price_body(definition.price),
        egress=[EgressBody(host=rule.host, port=rule.port) for rule in definition.egress],
        models=list(definition.models),
        drain_s=definition.drain_s,
    )


def view_from_definition(definition: Definition) -> DefinitionView:
    """Return what may be shown of it to whoever reads."""
    shown = body_from_definition(definition).model_dump(exclude={"environment"})
    names = dict.fromkeys(name for name, _ in definition.environment)
    return DefinitionView.model_validate({**shown, "environment": names})
