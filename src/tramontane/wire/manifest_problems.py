"""Says what is wrong in a manifest: pydantic's findings in the words of the file.

Each problem has the path of the key, what was expected there and what was given; an unknown key
comes with the known one it resembles. Called by ``wire.manifest`` only.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tramontane.base.errors import InvalidRequest
from tramontane.wire.manifest_form import AliasForm, ManyForm, ServiceForm
from tramontane.wire.quantities import format_bytes
from tramontane.wire.strict_yaml import quoted

PROBLEMS_SHOWN_MAX = 20


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where."""

    path: str
    text: str


def invalid(file_name: str, problems: Sequence[Problem]) -> InvalidRequest:
    """Return one error that lists all problems of a file."""
    unique = list(dict.fromkeys(problems))
    lines = [f"{each.path}: {each.text}" for each in unique[:PROBLEMS_SHOWN_MAX]]
    if len(unique) > PROBLEMS_SHOWN_MAX:
        lines.append(f"and {len(unique) - PROBLEMS_SHOWN_MAX} more")
    if len(lines) == 1:
        return InvalidRequest(f"{file_name}: {lines[0]}", path=unique[0].path)
    count = f"{file_name}: {len(unique)} problems"
    return InvalidRequest("\n  ".join([count, *lines]), path=unique[0].path)


def form_problem(error: ErrorDetails, form: type[BaseModel]) -> Problem:
    """Return a finding about keys and types."""
    location = [step for step in error["loc"] if step != "[key]"]
    path = _show(location)
    given = error["input"]
    match error["type"]:
        case "extra_forbidden":
            return Problem(path, _unknown_key(location, form))
        case "missing":
            return Problem(path, "is missing")
        case "not_offered":
            return Problem(path, error["msg"])
        case "form":
            return Problem(path, f"expected {error['msg']}, got {kind_of(given)}")
        case "literal_error":
            expected = error.get("ctx", {}).get("expected", "")
            text = f"expected one of {expected}, got {kind_of(given)}"
            return Problem(path, text.replace("'", ""))
        case kind:
            return Problem(path, f"expected {_expected(kind, error)}, got {kind_of(given)}")


_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "list_type": "a list",
    "string_unicode": "text",
}


def _expected(kind: str, error: ErrorDetails) -> str:
    return _EXPECTED.get(kind, error["msg"])


def _unknown_key(location: Sequence[str | int], form: type[BaseModel]) -> str:
    known = _keys_at(location[:-1], form)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.55)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    return f"unknown key; known here: {', '.join(known)}"


_PARTS: Mapping[str | int, type[BaseModel]] = {"services": ServiceForm, "aliases": AliasForm}


def _keys_at(location: Sequence[str | int], form: type[BaseModel]) -> list[str]:
    """Return the keys that are known at a place in the form."""
    here: type[BaseModel] = form
    for step in location:
        if step in _PARTS and here is ManyForm:
            here = _PARTS[str(step)]
        elif (field := here.model_fields.get(str(step))) is not None:
            inner = field.annotation
            here = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else here
    return list(here.model_fields)


def _show(location: Iterable[str | int]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += ("." if path else "") + quoted(step)
    return path or "the manifest"


def kind_of(value: object) -> str:
    """Return what was given, as a person would say it."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f'"{quoted(value)}"' if value else "empty text"
        case _:
            return "a list" if isinstance(value, list) else "keys with values"


# --- limits: the paths of the wire in the words of the file ------------------------------------

_NAMES: Mapping[str, str] = {
    "command": "run",
    "environment": "env",
    "source": "model",
    "scaling": "scale",
    "drain_s": "drain",
    "idle_s": "idle",
    "first_token_s": "first_token",
    "between_tokens_s": "between_tokens",
    "grace_s": "grace",
    "interval_s": "interval",
    "timeout_s": "timeout",
    "failures_max": "failures",
    "memory_bytes": "memory",
    "cpus": "cpu",
    "processes_max": "processes",
    "targets": "to",
    "canaries": "canary",
    "fallbacks": "fallback",
    "context_tokens": "context",
}


def unfit_problem(location: Sequence[str], text: str) -> Problem:
    """Return a finding of the rules between fields, whose path is the wire's."""
    return Problem(_show([_NAMES.get(step, step) for step in location]), text)


def limit_problem(error: ErrorDetails) -> Problem:
    """Return a finding of the wire's limits."""
    location = [step for step in error["loc"] if step != "[key]"]
    match location:
        case ["environment", *rest]:
            shown: list[str | int] = ["env", *rest]
        case ["source", *_]:
            shown = ["model"]
        case ["egress", int() as position, *_]:
            shown = ["egress", position]
        case _:
            shown = [_NAMES.get(str(step), step) for step in location]
    expected = _limit(error["type"], error.get("ctx", {}), location)
    return Problem(_show(shown), f"expected {expected}, got {kind_of(error['input'])}")


def _limit(kind: str, context: Mapping[str, Any], location: Sequence[str | int]) -> str:
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{words} {_number(context[key])}"
    match kind:
        case "string_too_long":
            return f"at most {context['max_length']} characters"
        case "string_too_short":
            return "some text"
        case "string_pattern_mismatch":
            return _PATTERNS.get(str(location[0]), f"text like {context['pattern']}")
        case "value_error":
            return str(context["error"]).removeprefix("expected ")
        case _:
            return _EXPECTED.get(kind, kind.replace("_", " "))


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "decimal_max_places": ("at most this many digits behind the point:", "decimal_places"),
    "too_long": ("at most this many items:", "max_length"),
}
_PATTERNS: Mapping[str, str] = {
    "environment": "a variable name of letters, digits and _, and a value without NUL",
    "probe": "a path that begins with /",
    "models": "the name of a model, such as assistant",
    "egress": "a host such as api.example.com or *.example.org:8443",
}


def _number(value: object) -> str:
    if isinstance(value, int) and value >= 1024**2 and value % 1024**2 == 0:
        return format_bytes(value).replace(" ", "")
    return f"{value:g}" if isinstance(value, float) else str(value)
