"""What one instance of a deployment takes in one cell: asked to place it, count it and start it.

Of a model that depends on the cell, so it is reckoned for each; asked again, it is the same.
"""

from dataclasses import dataclass

from tramontane.domain.cell import Capacity
from tramontane.domain.definition import Definition, Resources, ServiceKind
from tramontane.domain.model import ModelFacts
from tramontane.plan.sizing import Refusal, Sizing, size_model

PROCESSES_OF_ENGINE = 192
"""Threads of the engine besides those that compute: connections, for the most part."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Limits of one instance, and of a model's how they came to be."""

    resources: Resources
    sizing: Sizing | None = None
    refusal: Refusal | None = None
    """It is a model that cannot be in this cell; ``resources`` mean nothing then."""


def needs_of(definition: Definition, facts: ModelFacts | None, capacity: Capacity) -> Needs:
    """Return what an instance takes in a cell of this capacity.

    ``facts`` are None for what is no model, and for a model that nobody has looked at yet.
    """
    wishes, usual = definition.resources, Resources()
    if facts is None or definition.kind is not ServiceKind.MODEL:
        return Needs(
            resources=Resources(
                memory_bytes=wishes.memory_bytes or usual.memory_bytes,
                cpus=wishes.cpus or usual.cpus,
                processes_max=wishes.processes_max,
            )
        )
    sized = size_model(facts, capacity, wishes, definition.engine)
    if isinstance(sized, Refusal):
        return Needs(resources=usual, refusal=sized)
    return Needs(
        sizing=sized,
        resources=Resources(
            memory_bytes=sized.memory_bytes,
            cpus=sized.cpus,
            processes_max=max(wishes.processes_max, PROCESSES_OF_ENGINE + 2 * sized.threads),
        ),
    )
