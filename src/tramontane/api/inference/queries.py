"""Reads query parameters and form fields, or says which one is wrong."""

from collections.abc import Iterable, Mapping

from tramontane.base.errors import InvalidRequest


def read_integer(values: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """Return a whole number within bounds; raises ``InvalidRequest``."""
    text = values.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not low <= int(text[:20]) <= high:
        raise InvalidRequest(f"{name} must be a whole number from {low} to {high}", path=name)
    return int(text)


def read_choice(values: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return one of the choices, the first if none was made; raises ``InvalidRequest``."""
    text = values.get(name, choices[0])
    if text not in choices:
        raise InvalidRequest(f"{name} must be one of {', '.join(choices)}", path=name)
    return text


def refuse(values: Mapping[str, str], names: Iterable[str]) -> None:
    """Raise ``InvalidRequest`` for what is not done here: a wrong answer would be worse."""
    for name in names:
        if name in values:
            raise InvalidRequest(f"{name} is not supported here; leave it out", path=name)
