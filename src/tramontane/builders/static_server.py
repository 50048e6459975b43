"""Serve a folder of files from inside a sandbox: content types, ETags, index.html, 404.html.

``detect`` names ``STATIC_COMMAND`` as the command of a static source; inside the sandbox uvicorn
runs this very file (see ``toolchains.find_static``), next to a copy of Starlette and nothing else
of the platform. So it may import nothing of ``tramontane``.
"""

import os
import stat
from pathlib import Path

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_COMMAND = (
    "sh",
    "-c",
    'exec python -m uvicorn static_server:make_app --factory --uds "$TRAM_SOCKET"'
    " --no-access-log --timeout-keep-alive 620 --lifespan off --ws none",
)

NOWHERE = ".tram-not-found"
"""Looked up in place of a hidden file, so that the answer is the site's own 404."""


class Site(StaticFiles):
    """Files of a folder; what begins with a dot is not there, except ``.well-known``."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return the file, the folder's ``index.html``, or the site's own 404 page."""
        parts = Path(path).parts
        if any(part.startswith(".") and part not in {".", ".well-known"} for part in parts):
            path = NOWHERE
        if parts and "." not in parts[-1] and await self._is_file(f"{path}.html"):
            # A page without its ending, as static site generators link it.
            path = f"{path}.html"
        response = await super().get_response(path, scope)
        # Browsers ask again each time, and are told 304 by ETag: a deploy shows at once.
        response.headers.setdefault("cache-control", "no-cache")
        return response

    async def _is_file(self, path: str) -> bool:
        _, status = await to_thread.run_sync(self.lookup_path, path)
        return status is not None and stat.S_ISREG(status.st_mode)


def make_app() -> Starlette:
    """Return the server for the folder named by ``TRAM_STATIC_ROOT``."""
    site = Site(directory=os.environ["TRAM_STATIC_ROOT"], html=True)  # noqa: TID251
    return Starlette(routes=[Mount("/", site)], middleware=[Middleware(GZipMiddleware)])
