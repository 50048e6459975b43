"""Tokens: who may call the API, and the models behind the gateway."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tramontane.api.access import Administrator
from tramontane.api.views import limits_view, token_view
from tramontane.base.errors import Forbidden, InvalidRequest
from tramontane.domain.limits import BudgetPeriod, Limits
from tramontane.domain.token import Scope
from tramontane.domain.usage import NANO
from tramontane.wire.schemas import (
    TOKEN_ID_PATTERN,
    CreatedToken,
    LimitsRequest,
    TokenRequest,
    TokenView,
)

router = APIRouter(prefix="/tokens", tags=["tokens"])

TokenId = Annotated[str, Path(pattern=TOKEN_ID_PATTERN)]


@router.get("")
def list_tokens(caller: Administrator) -> list[TokenView]:
    """All tokens, without their secrets."""
    return [token_view(each) for each in caller.parts.store.list_tokens(caller.project)]


@router.post("", status_code=201)
def create_token(body: TokenRequest, caller: Administrator) -> CreatedToken:
    """Make a token; this answer is the only time it is shown."""
    if caller.project is not None and body.project != caller.project:
        raise Forbidden(f"your token makes tokens for project {caller.project} only")
    _check_models(body)
    token, text = caller.parts.tokens.mint(
        body.name,
        project=body.project,
        scope=Scope[body.scope.upper()],
        models=body.models,
        expires_in_s=body.expires_in_s,
        request=caller.guard.request,
    )
    limits = None if body.limits is None else _limits(body.limits)
    if limits is not None:
        # Nobody has the token before this answer, so it is limited before it is used.
        caller.parts.store.limit_token(token.id, limits)
        caller.parts.limited()
    return CreatedToken(
        id=token.id,
        name=token.name,
        project=token.project,
        scope=body.scope,
        created_at=token.created_at,
        expires_at=token.expires_at,
        models=body.models,
        limits=limits_view(limits),
        token=text,
    )


@router.put("/{token_id}/limits")
def limit_token(token_id: TokenId, body: LimitsRequest, caller: Administrator) -> TokenView:
    """Change how much a token may use; what is left out is not limited any more."""
    limits = _limits(body)
    record = caller.parts.store.limit_token(
        token_id, None if limits == Limits() else limits, project=caller.project
    )
    caller.parts.limited()
    return token_view(record)


@router.delete("/{token_id}", status_code=204)
def delete_token(token_id: TokenId, caller: Administrator) -> Response:
    """Make a token invalid, at once here and within moments at the gateway."""
    caller.parts.store.revoke_token(token_id, project=caller.project)
    caller.parts.revoked(token_id)
    return Response(status_code=204)


def _limits(body: LimitsRequest) -> Limits:
    budget = body.budget_eur
    return Limits(
        requests_per_minute=body.requests_per_minute,
        tokens_per_minute=body.tokens_per_minute,
        streams=body.streams,
        budget=None if budget is None else int(budget * NANO),
        budget_period=BudgetPeriod(body.budget_period),
    )


def _check_models(body: TokenRequest) -> None:
    if body.models is None:
        return
    if body.scope != Scope.INFERENCE.name.lower():
        raise InvalidRequest(
            f"models: limit a token of scope inference, and this one is of scope {body.scope}",
            path="models",
        )
    if body.project is None:
        raise InvalidRequest("models: belong to a project: name it as project", path="models")
