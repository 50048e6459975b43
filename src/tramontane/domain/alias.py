"""A name under which a project's models are asked for, and how requests are shared out among them.

What a user wrote; ``plan.aliases`` makes the route from it and from the models that there are.
"""

from dataclasses import dataclass

PERCENT = 100


@dataclass(frozen=True, kw_only=True)
class Share:
    """How much of what is asked under an alias goes to one model service."""

    service: str
    percent: int


@dataclass(frozen=True, kw_only=True)
class Canary:
    """Requests that go to one model service because they say so in a header."""

    header: str
    """In lower case."""
    value: str
    service: str


@dataclass(frozen=True, kw_only=True)
class AliasDefinition:
    """Everything about an alias that its user can change. Shares add up to ``PERCENT``."""

    targets: tuple[Share, ...]
    canaries: tuple[Canary, ...] = ()
    fallbacks: tuple[str, ...] = ()
    """Tried in this order when the chosen service fails before its answer begins."""
    first_token_s: float | None = None
    """A stream that has not begun after this long is tried at the next service."""
    between_tokens_s: float | None = None
    """A stream that is silent for this long has failed; at least ``first_token_s``."""

    @property
    def services(self) -> tuple[str, ...]:
        """Every service that the alias names, once, in the order of the definition."""
        named = (
            *(each.service for each in self.targets),
            *(each.service for each in self.canaries),
            *self.fallbacks,
        )
        return tuple(dict.fromkeys(named))


@dataclass(frozen=True, kw_only=True)
class Alias:
    """One alias of a project, as it was acknowledged."""

    project: str
    name: str
    definition: AliasDefinition
    generation: int
    created_at: float
