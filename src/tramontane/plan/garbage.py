"""What of the disk may go: from what lies there and what rows refer to, at one instant. Pure.

``reconcile.garbage`` calls ``plan_garbage`` now and then. A plan is a proposal: whoever removes a
thing looks once more when nobody can begin to use it (``reconcile.garbage`` says how).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tramontane.domain.inventory import DiskUsage, Item, ItemKind, References

Key = tuple[ItemKind, str]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is kept; ``tram up`` takes all but the logs' from the operator."""

    deployments_kept: int = 10
    """Of each service, so that it can be rolled back."""
    unneeded_kept_s: float = 600.0
    """From the moment that nothing needs a thing any more: somebody may want it back."""
    logs_kept_s: float = 7 * 86_400.0
    """From the last line, for instances that are over."""
    caches_bytes_max: int = 10 * 1024**3


@dataclass(frozen=True, kw_only=True)
class GarbagePlan:
    """What to remove, in this order, and what to remember for the next plan."""

    remove: tuple[Item, ...]
    unneeded_since: Mapping[Key, float]
    usage: DiskUsage
    """Of what stays."""


ORDER = (
    # An instance before what it may have mounted, an artifact before its layers, and a log before
    # the folder it lies in (see ``_position``).
    *(ItemKind.INSTANCE, ItemKind.ARTIFACT, ItemKind.LAYER, ItemKind.CACHE),
    *(ItemKind.ARCHIVE, ItemKind.LOG, ItemKind.LEFTOVER),
)


def plan_garbage(
    items: Sequence[Item],
    references: References,
    unneeded_since: Mapping[Key, float],
    limits: Limits,
    now: float,
) -> GarbagePlan:
    """Return the plan; ``unneeded_since`` is the last plan's, or empty."""
    unneeded = [each for each in items if not _is_needed(each, references)]
    since = {each.key: unneeded_since.get(each.key, now) for each in unneeded}
    stray = any(each.running for each in unneeded)
    going = [
        each
        for each in unneeded
        if now - max(since[each.key], each.used_at) >= _kept_s(each, references, limits)
        # No row says what a stray instance has mounted; it is ended first.
        and not (stray and each.kind is ItemKind.ARTIFACT)
    ]
    gone = {each.key for each in going}
    mounted = {
        layer
        for each in items
        if each.kind is ItemKind.ARTIFACT and each.key not in gone
        for layer in each.layers
    }
    caches = [each for each in items if _is_cache(each, mounted)]
    if not stray:
        going += _least_recently_used(caches, limits.caches_bytes_max)
    gone = {each.key for each in going}
    staying = [each for each in items if each.key not in gone]
    return GarbagePlan(
        remove=tuple(sorted(going, key=_position)),
        unneeded_since=since,
        usage=_usage(staying, {each.key for each in caches}, now),
    )


def _is_needed(item: Item, references: References) -> bool:
    match item.kind:
        case ItemKind.INSTANCE:
            return item.name in references.instances
        case ItemKind.ARTIFACT:
            return item.name in references.artifacts
        case ItemKind.ARCHIVE:
            return item.name in references.archives
        case ItemKind.LOG:
            service, slash, file = item.name.partition("/")
            writer = file.partition(".")[0]
            wanted = not slash or writer in references.instances or writer in references.deployments
            return service in references.services and wanted
        case ItemKind.LEFTOVER:
            return False
        case ItemKind.LAYER | ItemKind.CACHE | ItemKind.TOOLCHAIN:
            # What decides about these is not rows: room, and for toolchains a new version of us.
            return True


def _kept_s(item: Item, references: References, limits: Limits) -> float:
    if item.kind is ItemKind.LEFTOVER:
        return 0.0
    # A sleeping service wakes many times a day, and its user may ask tomorrow what it said.
    if item.kind is ItemKind.LOG and item.name.partition("/")[0] in references.services:
        return limits.logs_kept_s
    return limits.unneeded_kept_s


def _is_cache(item: Item, mounted: set[str]) -> bool:
    spare_layer = item.kind is ItemKind.LAYER and item.name not in mounted
    return spare_layer or item.kind is ItemKind.CACHE


def _least_recently_used(caches: Iterable[Item], bytes_max: int) -> list[Item]:
    """Return what has to go, longest unused first, so that the rest fits."""
    oldest_first = sorted(caches, key=lambda each: (each.used_at, each.key))
    excess = sum(each.size_bytes for each in oldest_first) - bytes_max
    going: list[Item] = []
    for each in oldest_first:
        if excess <= 0:
            break
        going.append(each)
        excess -= each.size_bytes
    return going


def _position(item: Item) -> tuple[int, bool, float, str]:
    is_folder = item.kind is ItemKind.LOG and "/" not in item.name
    return ORDER.index(item.kind), is_folder, item.used_at, item.name


def _usage(items: Iterable[Item], caches: set[Key], now: float) -> DiskUsage:
    bytes_by = dict.fromkeys(ItemKind, 0)
    for each in items:
        kind = ItemKind.CACHE if each.key in caches else each.kind
        bytes_by[kind] += each.size_bytes
    return DiskUsage(
        at=now,
        artifacts=bytes_by[ItemKind.ARTIFACT] + bytes_by[ItemKind.LAYER],
        toolchains=bytes_by[ItemKind.TOOLCHAIN],
        caches=bytes_by[ItemKind.CACHE],
        archives=bytes_by[ItemKind.ARCHIVE],
        logs=bytes_by[ItemKind.LOG],
    )
