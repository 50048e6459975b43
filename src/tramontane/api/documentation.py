"""The published contract: the OpenAPI document, and a page of it for people.

Everything is made here and served from here: a page that loads scripts from elsewhere would tell
somebody else who reads it.
"""

from html import escape
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tramontane.api.problems import MEDIA_TYPE
from tramontane.wire.schemas import LogLine, Problem

REFERENCE = "#/components/schemas/{model}"
PROBLEM: dict[int | str, dict[str, Any]] = {
    status: {
        "description": "Problem details (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in ("4XX", "5XX")
}
"""What every operation may answer besides its own; given to each router."""

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1c1c1c;background:#fff}code{font:15px ui-monospace,monospace}"
    "dt{margin-top:1rem;font-weight:600}dd{margin:0;color:#444}"
)


def make_openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the app."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = cast("dict[str, Any]", document.setdefault("components", {}))
    schemas = cast("dict[str, Any]", components.setdefault("schemas", {}))
    for model in (Problem, LogLine):
        schemas.setdefault(model.__name__, model.model_json_schema(ref_template=REFERENCE))
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    return document


def make_page(document: dict[str, Any]) -> str:
    """Return a plain page that lists every operation; it loads nothing."""
    entries = [
        f"<dt><code>{method.upper()} {escape(path)}</code></dt>"
        f"<dd>{escape(operation.get('description', ''))}</dd>"
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    ]
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style><h1>{title}</h1>"
        "<p>Send <code>Authorization: Bearer tram_…</code> with every request. The machine-readable"
        ' form of this page is <a href="/api/v1/openapi.json">OpenAPI 3.1</a>.</p>'
        f"<dl>{''.join(entries)}</dl></html>"
    )
