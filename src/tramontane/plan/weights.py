"""Which files of a model are fetched, and which weights make room for others. Pure.

``weights`` asks: for the files when it has seen what a source offers, and for room before the
first byte of a fetch and now and then. Weights in use are never taken away; the caller says which.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from tramontane.base.errors import InvalidRequest
from tramontane.base.sizes import format_bytes
from tramontane.domain.reference import SPLIT_FILE
from tramontane.domain.weights import RemoteFile, is_safe_name

GGUF = ".gguf"
SAFETENSORS = ".safetensors"
COMPANIONS = (".json", ".jinja", ".model", ".tiktoken", ".txt")
"""What an engine reads beside the tensors: configuration, tokenizer and template. No ``.py``: code
that comes with a model is never fetched."""
PAPERS = re.compile(r"readme\.md|licen[sc]e.*|notice.*", re.IGNORECASE)
"""They say whose the weights are and what may be done with them."""
PAPERS_BYTES_MAX = 1024**2
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SHOWN_MAX = 12


def choose_files(
    files: Sequence[RemoteFile], wanted: str, reference: str
) -> tuple[RemoteFile, ...]:
    """Return the files of one model, out of all that lie beside each other.

    With ``wanted``, that file, and where a model was split, its other parts. Without, what there
    is: the one GGUF model, or the safetensors with what belongs to them. Raises ``InvalidRequest``
    where there is nothing to load, or more than one model to choose from.
    """
    ggufs = _group(files, GGUF)
    if wanted:
        chosen = ggufs.get(_group_name(wanted)) or [x for x in files if x.name == wanted]
        if not any(each.name == wanted for each in chosen):
            raise _no_such_file(files, wanted, reference)
    elif models := {name: group for name, group in ggufs.items() if not is_projector(name)}:
        if len(models) > 1:
            raise _which(models, reference)
        chosen = [*next(iter(models.values())), *_papers(files)]
    else:
        chosen = _choose_safetensors(files, reference)
    _check_parts(chosen, reference)
    for each in chosen:
        if not is_safe_name(each.name):
            raise _invalid(reference, f"it has a file of the name {each.name!r}")
    return tuple(sorted(chosen, key=lambda each: each.name))


def is_projector(name: str) -> bool:
    """Return whether this GGUF file is the eyes of another model, not a model."""
    return name.rpartition("/")[2].startswith("mmproj")


def _choose_safetensors(files: Sequence[RemoteFile], reference: str) -> list[RemoteFile]:
    # What lies in folders below is the same model in other forms (onnx/, original/).
    beside = [each for each in files if "/" not in each.name]
    tensors = [each for each in beside if each.name.endswith(SAFETENSORS)]
    if not tensors:
        raise _no_weights(files, reference)
    # Mistral publishes the same weights twice; engines load the form with a configuration.
    merged = [each for each in tensors if not each.name.startswith("consolidated")]
    companions = [each for each in beside if each.name.endswith(COMPANIONS)]
    return [*(merged or tensors), *companions, *_papers(files)]


def _papers(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    return [
        each
        for each in files
        if PAPERS.fullmatch(each.name)
        and each.size_bytes <= PAPERS_BYTES_MAX
        and not each.name.endswith(COMPANIONS)
    ]


def _group(files: Iterable[RemoteFile], suffix: str) -> dict[str, list[RemoteFile]]:
    """Return the models among the files, each with its parts."""
    groups: dict[str, list[RemoteFile]] = {}
    for each in files:
        if each.name.endswith(suffix):
            groups.setdefault(_group_name(each.name), []).append(each)
    return groups


def _group_name(name: str) -> str:
    split = SPLIT_FILE.match(name)
    return f"{split['stem']} in {split['count']}" if split else name


def _check_parts(chosen: Iterable[RemoteFile], reference: str) -> None:
    found = Counter[str]()
    wanted: dict[str, int] = {}
    for each in chosen:
        if split := SPLIT_FILE.match(each.name):
            found[split["stem"]] += 1
            wanted[split["stem"]] = int(split["count"])
    for stem, count in wanted.items():
        if found[stem] != count:
            raise _invalid(reference, f"{stem} has {count} parts, of which {found[stem]} are there")


def _which(models: dict[str, list[RemoteFile]], reference: str) -> InvalidRequest:
    firsts: list[str] = []
    for group in models.values():
        # Some sources tell a size only when they are asked for the file.
        size = sum(each.size_bytes for each in group)
        firsts.append(min(each.name for each in group) + (f" ({format_bytes(size)})" * bool(size)))
    shown = ", ".join(sorted(firsts)[:SHOWN_MAX])
    more = f" and {len(firsts) - SHOWN_MAX} more" if len(firsts) > SHOWN_MAX else ""
    return _invalid(reference, f"it holds several models, name the file of one: {shown}{more}")


def _no_such_file(files: Iterable[RemoteFile], wanted: str, reference: str) -> InvalidRequest:
    known = [each.name for each in files if each.name.endswith((GGUF, SAFETENSORS))]
    shown = ", ".join(sorted(known)[:SHOWN_MAX])
    return _invalid(
        reference, f"there is no file {wanted}" + (f"; there are {shown}" * bool(known))
    )


def _no_weights(files: Sequence[RemoteFile], reference: str) -> InvalidRequest:
    if not files:
        return _invalid(reference, "there is nothing")
    if any(each.name.endswith(PICKLES) for each in files):
        return _invalid(
            reference,
            "its weights are pickles, which run code when they are loaded, so they are not "
            "fetched; look for the same model as .safetensors or .gguf",
        )
    return _invalid(reference, f"none of its {len(files)} files is .gguf or .safetensors")


def _invalid(reference: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"the model {reference} cannot be used: {what}", path="source.model")


# --- room --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Something that keeps files in the cache: a model, or a fetch that was not finished."""

    key: str
    files: frozenset[tuple[str, int]]
    """What it keeps, as name and bytes; a file that several keep is there once."""
    used_at: float


@dataclass(frozen=True, kw_only=True)
class RoomLimits:
    """How much the cache may take."""

    bytes_max: int
    """All weights together."""
    free_bytes_min: int
    """What stays free on the disk for everything else."""


@dataclass(frozen=True, kw_only=True)
class Room:
    """How to make room, or the numbers that speak against it."""

    evict: tuple[str, ...] = ()
    """Keys, least recently used first."""
    refusal: str = ""


def plan_room(
    holdings: Sequence[Holding],
    in_use: Collection[str],
    needed_bytes: int,
    free_bytes: int,
    limits: RoomLimits,
) -> Room:
    """Return what has to go so that ``needed_bytes`` more fit; nothing goes if that is in vain."""
    total = _size(holdings)
    excess = max(
        total + needed_bytes - limits.bytes_max,
        needed_bytes + limits.free_bytes_min - free_bytes,
    )
    kept, going = list(holdings), list[Holding]()
    for each in sorted(holdings, key=lambda each: (each.used_at, each.key)):
        if total - _size(kept) >= excess:
            break
        if each.key not in in_use:
            going.append(each)
            kept.remove(each)
    if total - _size(kept) < excess and needed_bytes:
        return Room(refusal=_refuse(total, _size(kept), needed_bytes, free_bytes, limits))
    # What was too small to help goes back, the most recently used first.
    for each in reversed(going.copy()):
        if total - _size([*kept, each]) >= excess:
            kept.append(each)
            going.remove(each)
    return Room(evict=tuple(each.key for each in going))


def _size(holdings: Iterable[Holding]) -> int:
    return sum(size for _, size in {file for each in holdings for file in each.files})


def _refuse(total: int, in_use: int, needed_bytes: int, free_bytes: int, limits: RoomLimits) -> str:
    return (
        f"it needs {format_bytes(needed_bytes)} more; weights may take "
        f"{format_bytes(limits.bytes_max)} and take {format_bytes(total)}, of which "
        f"{format_bytes(in_use)} are in use; the disk has {format_bytes(free_bytes)} free, and "
        f"{format_bytes(limits.free_bytes_min)} stay free"
    )
