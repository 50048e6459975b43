"""``tram models``: those that are served, and what the files of any model say of it.

The verbs about weights on the platform's machine are in ``cli.weights``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from tramontane.cli.failures import make_not_found
from tramontane.cli.lazy import SuggestingGroup
from tramontane.cli.options import output_option
from tramontane.cli.output import Column, Item, print_list, print_one
from tramontane.cli.session import Session, pass_session
from tramontane.cli.weights import cache, evict, fetch, model_reference
from tramontane.wire import calls
from tramontane.wire.quantities import format_bytes, format_count


def _shown(name: str, value: object) -> object:
    """Return a fact as people read it."""
    match name, value:
        case _, None:
            return "unknown"
        case "parameters", int():
            return format_count(value)
        case "size_bytes", int():
            return format_bytes(value)
        case _:
            return value


def _fact(name: str) -> Callable[[Item], object]:
    return lambda facts: _shown(name, facts[name])


def _fact_of_served(name: str) -> Callable[[Item], object]:
    def read(model: Item) -> object:
        facts: Item = model.get("facts") or {}
        return _shown(name, facts.get(name))

    return read


MODEL_COLUMNS: Sequence[Column] = (
    ("name", lambda each: each["name"]),
    ("project", lambda each: each["project"]),
    ("status", lambda each: each["status"]),
    ("parameters", _fact_of_served("parameters")),
    ("quantisation", _fact_of_served("quantisation")),
    ("context", _fact_of_served("context_length")),
    ("url", lambda each: each["url"]),
)
FACTS: Sequence[tuple[str, str]] = (
    ("name", "name"),
    ("format", "format"),
    ("architecture", "architecture"),
    ("parameters", "parameters"),
    ("quantisation", "quantisation"),
    ("size", "size_bytes"),
    ("context", "context_length"),
    ("vocabulary", "vocabulary"),
    ("layers", "layers"),
    ("embedding length", "embedding_length"),
    ("attention heads", "attention_heads"),
    ("key/value heads", "kv_heads"),
    ("key length", "key_length"),
    ("value length", "value_length"),
    ("sliding window", "sliding_window"),
    ("chat template", "chat_template"),
    ("tools", "tools"),
    ("pooling", "pooling"),
    ("licence", "licence"),
    ("maker's country", "origin_country"),
    ("revision", "revision"),
    ("digest", "digest"),
)
"""Headings and fields of a model's card."""


@click.group(cls=SuggestingGroup)
def models() -> None:
    """The models that can be talked to."""


models.add_command(fetch)
models.add_command(cache)
models.add_command(evict)


@models.command("list")
@output_option
@pass_session
def list_models(session: Session, output: str) -> None:
    """List models."""
    session.about("models")
    found = session.api().fetch(calls.list_models())
    print_list(output, found, MODEL_COLUMNS, "no models yet; try: tram deploy --model tiny")


@models.command("get")
@click.argument("name", metavar="NAME")
@output_option
@pass_session
def get_model(session: Session, name: str, output: str) -> None:
    """Show one model."""
    session.about(f"model {name}", "tram models list")
    served = session.api().fetch(calls.list_models())
    found = next((each for each in served if each["name"] == name), None)
    if found is None:
        raise make_not_found("model", name, (each["name"] for each in served))
    print_one(output, found, (*MODEL_COLUMNS, ("weights", lambda each: each.get("reference"))))


@models.command("inspect")
@click.argument("reference", metavar="REF")
@output_option
@pass_session
def inspect_model(session: Session, reference: str, output: str) -> None:
    """Show what the files of a model say of it, without loading it.

    REF is tiny, a GGUF file or a directory with config.json and safetensors on the platform's
    machine, or a model that was fetched. What the files do not say is unknown.
    """
    session.about(f"model {reference}")
    found = session.api().fetch(calls.inspect_model(model_reference(reference, Path())))
    print_one(output, found, [(title, _fact(name)) for title, name in FACTS])


def sizing_lines(sizing: Item) -> list[str]:
    """Return what an instance of a model gets in one line, and a line for each thing to know."""
    tokens = f"{sizing['context_tokens']:,} tokens"
    cores = f"{sizing['cpus']:g} core" + ("s" if sizing["cpus"] != 1 else "")
    parts = {each["name"]: each["size_bytes"] for each in sizing["parts"]}
    if parts:
        parts["headroom"] = sizing["memory_bytes"] - sizing["needed_bytes"]
    if cache := sizing["prompt_cache_bytes"]:
        parts |= {"headroom": parts["headroom"] - cache, "prompt cache": cache}
    terms = " + ".join(f"{name} {_mebibytes(size)}" for name, size in parts.items())
    memory = f"{_mebibytes(sizing['memory_bytes'])} MiB" + (f" = {terms}" if terms else "")
    line = (
        f"size: {sizing['engine']}, {sizing['parallel']} x {tokens} of context, {cores}, {memory}"
    )
    return [line, *(f"note: {each}" for each in sizing["notes"])]


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 1024**2:,.0f}"
