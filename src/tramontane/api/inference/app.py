"""Makes the application that the gateway asks for files and batches; served on a socket of its own.

Apart from the platform's own API: its callers, its errors and its limits are others.
"""

from starlette.applications import Starlette
from starlette.routing import Route

from tramontane.api.inference import files
from tramontane.api.inference.errors import install_error_handlers
from tramontane.api.inference.parts import Handler, InferenceParts, with_caller

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/files", files.create_file),
    ("GET", "/v1/files", files.list_files),
    ("GET", "/v1/files/{file_id}", files.get_file),
    ("DELETE", "/v1/files/{file_id}", files.delete_file),
    ("GET", "/v1/files/{file_id}/content", files.get_content),
    ("GET", "/v1/files/{file_id}/url", files.get_signed_url),
)


def make_inference_app(parts: InferenceParts) -> Starlette:
    """Return the ASGI application over these parts; it starts nothing by itself."""
    app = Starlette(
        routes=[
            Route(path, with_caller(handler), methods=[method]) for method, path, handler in ROUTES
        ]
    )
    app.router.redirect_slashes = False
    app.state.parts = parts
    install_error_handlers(app)
    return app
