"""Tramontane: a sovereign serverless cloud for AI on machines of European providers.

Users of the library import the API clients from here: ``from tramontane import Client``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]

if TYPE_CHECKING:
    from tramontane.wire.client import AsyncClient, Client


def __getattr__(name: str) -> object:
    """Load the clients on first use (PEP 562).

    The command line and the per-instance supervisors import this package at start-up;
    an HTTP stack they may never use would cost each of them tens of milliseconds.
    """
    if name in {"Client", "AsyncClient"}:
        return getattr(import_module("tramontane.wire.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
