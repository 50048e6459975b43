"""What a service of each kind may ask for: rules between fields, which no schema expresses.

``wire.manifest`` holds a file to them and ``api.definitions`` a request, so that both refuse the
same things in the same words.
"""

from collections.abc import Iterator
from typing import Any

from tramontane.domain.definition import KEY_VARIABLE, URL_VARIABLE, ServiceKind
from tramontane.wire.schemas import DefinitionBody, ProbeBody, ScalingBody

Finding = tuple[tuple[str, ...], str]
"""The path of a field of ``DefinitionBody``, and what is wrong there."""

NOT_OFFERED = frozenset({ServiceKind.JOB.value, ServiceKind.FUNCTION.value})
NEED_REQUESTS = (
    *(("probe", name) for name in ("path", "interval_s", "timeout_s", "failures_max")),
    *(("scaling", name) for name in ("concurrency", "idle_s")),
)
NEED_TOKENS = ("first_token_s", "between_tokens_s")


def refuse_kind(kind: str) -> str:
    """Return why a kind is refused; empty if it is not."""
    if kind not in NOT_OFFERED:
        return ""
    return (
        f"{kind} is not offered yet; web is for what answers requests, worker for what runs on "
        "without a port"
    )


def find_unfit(body: DefinitionBody) -> Iterator[Finding]:
    """Yield each field that is wrong for a service of this kind."""
    if refusal := refuse_kind(body.kind):
        yield ("kind",), refusal
    if body.kind == ServiceKind.WORKER.value:
        yield from _find_unfit_for_worker(body)
    if body.kind != ServiceKind.MODEL.value:
        for name, value in body.engine.model_dump().items():
            if value is not None:
                yield ("engine", name), "only a model is served by an engine: remove it"
        for name in NEED_TOKENS:
            if getattr(body.scaling, name) is not None:
                yield ("scaling", name), "only a model answers in tokens: remove it"
        if body.price is not None:
            yield ("price",), "only the tokens of a model have a price: remove it"
    if body.models:
        yield from _find_unfit_with_models(body)


def _find_unfit_for_worker(body: DefinitionBody) -> Iterator[Finding]:
    if body.scaling.min < 1:
        yield (
            ("scaling", "min"),
            "expected at least 1 for a worker, since no request would ever wake it; "
            "stop one with: tram pause NAME",
        )
    usual: dict[str, Any] = {"probe": ProbeBody(), "scaling": ScalingBody()}
    for part, name in NEED_REQUESTS:
        if getattr(getattr(body, part), name) != getattr(usual[part], name):
            yield (part, name), "means nothing for a worker, which takes no requests: remove it"


def _find_unfit_with_models(body: DefinitionBody) -> Iterator[Finding]:
    if body.kind == ServiceKind.MODEL.value:
        yield ("models",), "means nothing for a model, which calls no other: remove it"
    for name in (KEY_VARIABLE, URL_VARIABLE):
        if name in body.environment:
            # With one of the two its own, the key for our models would go to somebody else's.
            yield (
                ("environment", name),
                "is set by the platform for a service with models: remove it, or models",
            )
