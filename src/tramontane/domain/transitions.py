"""Walking the tables of allowed transitions."""

from collections.abc import Mapping, Set
from enum import StrEnum
from typing import TypeVar

Status = TypeVar("Status", bound=StrEnum)


def leads_to(table: Mapping[Status, Set[Status]], before: Status, after: Status) -> bool:
    """Return whether steps of the table lead from one status to the other, or none is needed.

    The store asks this, since several steps can fall into one look at an object: an instance may
    have been placed, started and found ready between two writes.
    """
    seen, ahead = {before}, [before]
    while ahead:
        for status in table[ahead.pop()] - seen:
            seen.add(status)
            ahead.append(status)
    return after in seen
