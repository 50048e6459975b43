"""A project: a workspace of services, and the presets that all of them must satisfy."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Project:
    """Projects come into being with their first service; ``default`` always exists."""

    name: str
    policy: tuple[str, ...] = ()
    created_at: float = 0.0
