"""Makes the application that the gateway asks for files and batches; served on a socket of its own.

Apart from the platform's own API: its callers, its errors and its limits are others.
"""

from starlette.applications import Starlette
from starlette.routing import Route

from tramontane.api.inference import batches, files, jobs
from tramontane.api.inference.errors import install_error_handlers
from tramontane.api.inference.parts import Handler, InferenceParts, with_caller

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/files", files.create_file),
    ("GET", "/v1/files", files.list_files),
    ("GET", "/v1/files/{file_id}", files.get_file),
    ("DELETE", "/v1/files/{file_id}", files.delete_file),
    ("GET", "/v1/files/{file_id}/content", files.get_content),
    ("GET", "/v1/files/{file_id}/url", files.get_signed_url),
    ("POST", "/v1/batches", batches.create_batch),
    ("GET", "/v1/batches", batches.list_batches),
    ("GET", "/v1/batches/{batch_id}", batches.get_batch),
    ("POST", "/v1/batches/{batch_id}/cancel", batches.cancel_batch),
    ("POST", "/v1/batch/jobs", jobs.create_job),
    ("GET", "/v1/batch/jobs", jobs.list_jobs),
    ("GET", "/v1/batch/jobs/{batch_id}", jobs.get_job),
    ("POST", "/v1/batch/jobs/{batch_id}/cancel", jobs.cancel_job),
    ("DELETE", "/v1/batch/jobs/{batch_id}", jobs.delete_job),
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
