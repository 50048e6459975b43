"""What is said of models that a service is bound to and that are not there: plans and deployments.

A binding is to a name, so what is missing may come later, and is no error.
"""

from collections.abc import Collection

from tramontane.domain.definition import Definition, ServiceKind
from tramontane.store.store import Store


def warn_of_missing(
    store: Store, project: str, definition: Definition, coming: Collection[str] = ()
) -> list[str]:
    """Return a sentence for each missing model; ``coming`` are those about to be deployed."""
    if not definition.models:
        return []
    known = {
        record.service.name
        for record in store.list_services(project)
        if record.service.kind is ServiceKind.MODEL and not record.service.deleted
    }
    known |= {alias.name for alias in store.list_aliases(project)}
    return [
        f"there is no model {name} in project {project}: it is not found until it is deployed"
        for name in definition.models
        if name not in known and name not in coming
    ]
