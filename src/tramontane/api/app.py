"""Makes the API: ``make_app(parts)`` is all that the control plane's process calls."""

from functools import cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from tramontane.api.documentation import PROBLEM, make_openapi, make_page
from tramontane.api.gate import PREFIX, Gate
from tramontane.api.handlers import (
    aliases,
    batches,
    deployments,
    metrics,
    models,
    plans,
    platform,
    projects,
    services,
    sources,
    streams,
    tokens,
    usage,
    weights,
)
from tramontane.api.parts import ApiParts
from tramontane.api.problems import install_problem_handlers

NOUNS = (
    platform,
    models,
    projects,
    sources,
    services,
    deployments,
    plans,
    aliases,
    tokens,
    streams,
    usage,
    weights,
    batches,
)
PAGE_HEADERS = {
    # Whatever a description may hold one day, this page runs nothing and loads nothing.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}


def make_app(parts: ApiParts) -> FastAPI:
    """Return the ASGI application over these parts; it starts nothing by itself."""
    app = FastAPI(
        title="Tramontane API",
        version=parts.platform.version,
        description="Sovereign serverless cloud for AI: services, deployments, placement.",
        # FastAPI's own pages load scripts from a content delivery network: ours does not.
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.parts = parts
    install_problem_handlers(app)
    api = APIRouter(prefix=PREFIX, responses=PROBLEM)
    for noun in NOUNS:
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(metrics.router, responses=PROBLEM)
    _publish(app)
    app.add_middleware(Gate, authenticate=parts.tokens.authenticate)
    return app


def _publish(app: FastAPI) -> None:
    @cache
    def document() -> dict[str, Any]:
        # Made when somebody asks: it takes longer than the rest of the app, and few ever do.
        return make_openapi(app)

    @app.get("/healthz", include_in_schema=False)
    async def check_health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(f"{PREFIX}/openapi.json", include_in_schema=False)
    def get_openapi_document() -> Any:
        return JSONResponse(document())

    @app.get("/docs", include_in_schema=False)
    def get_docs() -> Any:
        return HTMLResponse(make_page(document()), headers=PAGE_HEADERS)

    assert check_health
    assert get_openapi_document
    assert get_docs
