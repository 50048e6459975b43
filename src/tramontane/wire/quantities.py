"""Durations and sizes as people write them: ``5m``, ``1h30m``, ``512MiB``, ``1GB``.

Used by the manifest and by options of the command line; one reading for both.
"""

import re

from tramontane.base.sizes import format_bytes
from tramontane.domain.usage import parse_euros

__all__ = [
    "DURATION_FORM",
    "DURATION_PATTERN",
    "EUROS_FORM",
    "EUROS_PATTERN",
    "SIZE_FORM",
    "SIZE_PATTERN",
    "format_bytes",
    "format_count",
    "is_euros",
    "parse_duration_s",
    "parse_size_bytes",
]

_DURATION = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,6})?)s)?"
)
_DURATION_MS = re.compile(r"(\d{1,9})ms")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s?([KMGT]i?B?|B)?", re.IGNORECASE)
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)},
}
DURATION_PATTERN = r"^(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?$|^\d+ms$"
SIZE_PATTERN = r"^\d+(\.\d+)? ?([KMGTkmgt][iI]?[bB]?|[bB])?$"
EUROS_PATTERN = r"^\d{1,12}(\.\d{1,12})?$"
DURATION_FORM = "a duration such as 30s, 5m or 1h30m, or a number of seconds"
EUROS_FORM = "an amount in euro such as 0.15"
SIZE_FORM = "a size such as 512MiB or 1GB, or a number of bytes"


def parse_duration_s(text: str) -> float | None:
    """Return seconds, or None if the text is no duration."""
    if found := _DURATION_MS.fullmatch(text):
        return int(found[1]) / 1000
    found = _DURATION.fullmatch(text)
    if not text or not found:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def is_euros(text: str) -> bool:
    """Return whether the text is an amount that is counted exactly."""
    return re.fullmatch(EUROS_PATTERN, text) is not None and parse_euros(text) is not None


def parse_size_bytes(text: str) -> int | None:
    """Return bytes, or None if the text is no size. ``MB`` is 1000², ``MiB`` and ``Mi`` 1024²."""
    found = _SIZE.fullmatch(text)
    if not found:
        return None
    unit = (found[2] or "").lower()
    if unit and not unit.endswith("b"):
        unit += "b"
    return int(float(found[1]) * _SIZE_UNITS[unit])


def format_count(number: float) -> str:
    """Return a large number as people say it: ``3.1M``, ``7.2B``."""
    for unit in ("", "K", "M", "B"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g}T"
