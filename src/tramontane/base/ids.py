"""Typed identifiers: a prefix that says what is named, then 80 random bits in base 32.

``svc_…`` in a log line can be told from ``ins_…`` by a person and by ``grep``.
The factory is an argument wherever ids are made, so that plans and tests are repeatable.
"""

import secrets
from collections.abc import Callable

IdFactory = Callable[[str], str]
"""Takes a prefix such as ``"svc"`` and returns a fresh id such as ``"svc_3k9…"``."""

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o, u, so ids survive being read aloud."""


def random_id(prefix: str) -> str:
    """Return ``prefix_`` followed by 16 random characters of ``ALPHABET``."""
    return f"{prefix}_{''.join(secrets.choice(ALPHABET) for _ in range(16))}"


def counting_ids() -> IdFactory:
    """Return a factory that counts up per prefix: for tests and golden files."""
    counts: dict[str, int] = {}

    def next_id(prefix: str) -> str:
        counts[prefix] = counts.get(prefix, 0) + 1
        return f"{prefix}_{counts[prefix]:016d}"

    return next_id
