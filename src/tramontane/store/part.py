"""The base of the store's parts, one part per noun; ``store.store.Store`` is all of them in one."""

from collections.abc import Iterable
from difflib import get_close_matches

from tramontane.store.database import Database


class Part:
    """Some of the store's methods, over the one database."""

    def __init__(self, database: Database) -> None:
        self._database = database


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the end of a "there is none" message: the nearest known name, or what exists."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    if not names:
        return "; there is none yet"
    more = " …" if len(names) > 5 else ""
    return f"; there are: {', '.join(names[:5])}{more}"
