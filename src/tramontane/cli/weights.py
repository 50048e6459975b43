"""``tram models fetch``, ``cache`` and ``evict``: the weights on the platform's machine."""

import re
from collections.abc import Sequence
from pathlib import Path

import click

from tramontane.base.errors import InvalidRequest, NotFound
from tramontane.base.progress import Progress, Reporter
from tramontane.cli.options import output_option
from tramontane.cli.output import Column, Item, format_time, print_document, print_list
from tramontane.cli.session import Session, pass_session
from tramontane.wire import calls
from tramontane.wire.quantities import format_bytes

POLL_S = 0.5
PIN = re.compile(r"(?<=[@#])(sha256:)?([0-9a-f]{12})[0-9a-f]+(?=$|:)")
"""A commit, a digest or a state, of which the first dozen digits are enough for people."""


def _size(weights: Item) -> str:
    whole = format_bytes(weights["size_bytes"])
    if weights["digest"] is not None:
        return whole
    return f"{format_bytes(weights['done_bytes'])} of {whole}"


def _references(weights: Item) -> list[str]:
    return [shorten(each) for each in weights["references"]]


WEIGHTS_COLUMNS: Sequence[Column] = (
    ("reference", _references),
    ("size", _size),
    ("used by", lambda each: each["used_by"]),
    ("last used", lambda each: format_time(each["used_at"])),
    ("digest", lambda each: (each["digest"] or "being fetched").removeprefix("sha256:")[:13]),
)


@click.command()
@click.argument("reference", metavar="REF")
@output_option
@pass_session
def fetch(session: Session, reference: str, output: str) -> None:
    """Fetch the weights of a model ahead, so that deploying it takes no time.

    It goes on without this command, too: asking again shows how far it is.
    """
    session.about(f"model {reference}")
    found = _follow(session, model_reference(reference, Path()))
    if output != "table":
        print_document(output, found)
        return
    size = format_bytes(found["size_bytes"])
    click.echo(f"{shorten(found['references'][0])} is on the platform's machine: {size}")


@click.command()
@output_option
@pass_session
def cache(session: Session, output: str) -> None:
    """List the weights on the platform's machine, and who uses them."""
    session.about("weights")
    found = session.api().fetch(calls.list_weights())
    print_list(output, found, WEIGHTS_COLUMNS, "no weights were fetched yet")


@click.command()
@click.argument("reference", metavar="REF")
@pass_session
def evict(session: Session, reference: str) -> None:
    """Remove weights from the platform's machine. Refused while a service needs them.

    REF is a reference or a digest as `tram models cache` shows it.
    """
    session.about(f"weights {reference}", "tram models cache")
    api = session.api()
    found = [each for each in api.fetch(calls.list_weights()) if _is_meant(each, reference)]
    if not found:
        raise NotFound(f"no weights {reference} are on the platform's machine")
    if len(found) > 1:
        several = ", ".join(name for each in found for name in _references(each))
        raise InvalidRequest(f"{reference} could be any of {several}: say which", path="reference")
    digest = found[0]["digest"]
    if digest is None:
        raise InvalidRequest(f"{reference} is being fetched at present", path="reference")
    gone = api.fetch(calls.delete_weights(digest))
    click.echo(f"{reference} is removed: {format_bytes(gone['size_bytes'])}")


def model_reference(text: str, directory: Path) -> str:
    """Return a model as the platform can find it: what is here by its whole path."""
    if "://" in text:
        return text
    path = directory / text
    here = path.is_file() if path.suffix == ".gguf" else (path / "config.json").is_file()
    return str(path.absolute()) if here else text


def shorten(reference: str) -> str:
    """Return a pinned reference as people can tell it from others."""
    return PIN.sub(r"\1\2", reference)


def _follow(session: Session, reference: str) -> Item:
    """Ask until the weights are there, showing how far they are."""
    api, clock = session.api(), session.clock
    started_at = clock.monotonic()
    reporter = Reporter(said_at=started_at)
    progress: Progress | None = None
    while True:
        found: Item = api.fetch(calls.fetch_weights(reference))
        if found["digest"] is not None:
            session.progress_done()
            return found
        # Pinned from the first answer on, so that no later one asks the source again.
        reference = found["references"][0]
        now = clock.monotonic()
        if found["size_bytes"]:
            progress = progress or Progress(total_bytes=found["size_bytes"], started_at=started_at)
            progress.update(found["done_bytes"], now)
            session.progress(progress.describe(now))
            if not session.terminal.stderr and (line := reporter.next_line(progress, now)):
                session.note(line)
        session.pause(POLL_S)


def _is_meant(weights: Item, wanted: str) -> bool:
    digest = (weights["digest"] or "").removeprefix("sha256:")
    names = [*weights["references"], *_references(weights)]
    return (
        (len(wanted) >= 12 and digest.startswith(wanted.removeprefix("sha256:")))
        or wanted in names
        or any(each.startswith((f"{wanted}@", f"{wanted}#")) for each in names)
    )
