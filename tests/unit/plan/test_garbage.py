"""What nothing needs goes after its time, what something needs never, and caches stay in bounds."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tramontane.domain.inventory import Item, ItemKind, References
from tramontane.plan.garbage import GarbagePlan, Key, Limits, plan_garbage

NOW = 1_000_000.0
LIMITS = Limits(unneeded_kept_s=600.0, logs_kept_s=7 * 86_400.0, caches_bytes_max=100)
NOTHING = References(
    artifacts=frozenset(),
    archives=frozenset(),
    services=frozenset(),
    deployments=frozenset(),
    instances=frozenset(),
)


def item(kind: ItemKind, name: str, **changes: object) -> Item:
    return replace(Item(kind=kind, name=name, size_bytes=10), **changes)  # type: ignore[arg-type]


def names(plan: GarbagePlan) -> list[str]:
    return [each.name for each in plan.remove]


def plan(
    *items: Item,
    references: References = NOTHING,
    since: Mapping[Key, float] | None = None,
    now: float = NOW,
) -> GarbagePlan:
    return plan_garbage(items, references, since or {}, LIMITS, now)


def test_time_runs_from_the_moment_that_nothing_needs_it() -> None:
    artifact = item(ItemKind.ARTIFACT, "a")
    used = replace(NOTHING, artifacts=frozenset({"a"}))
    assert plan(artifact, references=used).remove == ()
    first = plan(artifact)
    assert first.remove == ()
    early = plan(artifact, since=first.unneeded_since, now=NOW + 599)
    assert early.remove == ()
    # Wanted again in between: the time begins anew.
    wanted = plan(artifact, references=used, since=early.unneeded_since, now=NOW + 650)
    assert wanted.unneeded_since == {}
    assert plan(artifact, since=wanted.unneeded_since, now=NOW + 700).remove == ()
    late = plan(artifact, since=early.unneeded_since, now=NOW + 600)
    assert names(late) == ["a"]


def test_what_was_used_a_moment_ago_stays_although_nothing_names_it() -> None:
    archive = item(ItemKind.ARCHIVE, "a", used_at=NOW - 599)
    assert plan(archive, since={archive.key: 0.0}).remove == ()
    old = replace(archive, used_at=NOW - 600)
    assert names(plan(old, since={old.key: 0.0})) == ["a"]


def test_a_running_instance_without_a_row_is_ended_before_any_artifact_goes() -> None:
    stray = item(ItemKind.INSTANCE, "ins_1", running=True)
    artifact = item(ItemKind.ARTIFACT, "a", layers=("l",))
    layer = item(ItemKind.LAYER, "l", size_bytes=1000)
    spare = item(ItemKind.LAYER, "spare", size_bytes=1000)
    everything = (artifact, layer, spare, stray)
    since = {each.key: 0.0 for each in everything}
    assert names(plan(*everything, since=since)) == ["ins_1"]
    ended = replace(stray, running=False)
    found = plan(artifact, layer, spare, ended, since=since)
    assert names(found) == ["ins_1", "a", "l", "spare"]


def test_logs_of_a_service_stay_a_week_and_those_of_a_deleted_one_as_long_as_all_else() -> None:
    known = replace(
        NOTHING,
        services=frozenset({"svc_1"}),
        deployments=frozenset({"dep_1"}),
        instances=frozenset({"ins_live"}),
    )
    day = 86_400.0
    kept = (
        item(ItemKind.LOG, "svc_1"),
        item(ItemKind.LOG, "svc_1/dep_1.build.log"),
        item(ItemKind.LOG, "svc_1/ins_live.log.2"),
        item(ItemKind.LOG, "svc_1/ins_over.log", used_at=NOW - 6 * day),
    )
    going = (
        item(ItemKind.LOG, "svc_1/ins_old.log", used_at=NOW - 8 * day),
        item(ItemKind.LOG, "svc_1/dep_0.build.log", used_at=NOW - 8 * day),
        item(ItemKind.LOG, "svc_2"),
        item(ItemKind.LOG, "svc_2/ins_1.log", used_at=NOW - 700),
    )
    since = {each.key: 0.0 for each in (*kept, *going)}
    found = plan(*kept, *going, references=known, since=since)
    assert set(found.remove) == set(going)
    assert names(found)[-1] == "svc_2", "a folder goes after what lies in it"


def test_leftovers_go_at_once_and_toolchains_never() -> None:
    found = plan(item(ItemKind.LEFTOVER, "build-x.1"), item(ItemKind.TOOLCHAIN, "node"))
    assert names(found) == ["build-x.1"]


def test_caches_shrink_to_their_limit_longest_unused_first() -> None:
    artifact = item(ItemKind.ARTIFACT, "a", layers=("mounted",))
    known = replace(NOTHING, artifacts=frozenset({"a"}))
    found = plan(
        artifact,
        item(ItemKind.LAYER, "mounted", size_bytes=500, used_at=0),
        item(ItemKind.LAYER, "spare", size_bytes=60, used_at=2),
        item(ItemKind.CACHE, "p/old", size_bytes=60, used_at=1),
        item(ItemKind.CACHE, "p/new", size_bytes=40, used_at=3),
        references=known,
    )
    assert names(found) == ["p/old"]
    assert (found.usage.artifacts, found.usage.caches) == (510, 100)


NAMES = st.sampled_from("abcdefgh")
TIMES = st.floats(NOW - 10 * 86_400, NOW + 1000)
KINDS = st.sampled_from(
    [each for each in ItemKind if each not in {ItemKind.LOG, ItemKind.INSTANCE}]
)
ITEMS = st.builds(
    Item,
    kind=KINDS,
    name=NAMES,
    size_bytes=st.integers(0, 60),
    used_at=TIMES,
    layers=st.lists(NAMES, max_size=3).map(tuple),
)
INSTANCES = st.builds(Item, kind=st.just(ItemKind.INSTANCE), name=NAMES, running=st.booleans())
LOGS = st.builds(
    lambda service, writer, used_at: Item(
        kind=ItemKind.LOG, name=f"{service}/{writer}.log", size_bytes=1, used_at=used_at
    ),
    *(NAMES, NAMES, TIMES),
)
DISKS = st.lists(ITEMS | LOGS | INSTANCES, unique_by=lambda each: each.key, max_size=30)
SETS = st.frozensets(NAMES)
REFERENCES = st.builds(
    References, artifacts=SETS, archives=SETS, services=SETS, deployments=SETS, instances=SETS
)
ANY_TIMES = st.dictionaries(st.tuples(st.sampled_from(ItemKind), NAMES), TIMES)


@given(DISKS, REFERENCES, ANY_TIMES)
def test_nothing_needed_is_ever_removed(
    disk: list[Item], references: References, since: dict[Key, float]
) -> None:
    found = plan_garbage(disk, references, since, LIMITS, NOW)
    gone = set(found.remove)
    assert gone <= set(disk)
    staying = [each for each in disk if each not in gone]
    mounted = {layer for each in staying if each.kind is ItemKind.ARTIFACT for layer in each.layers}
    for each in gone:
        match each.kind:
            case ItemKind.INSTANCE:
                assert each.name not in references.instances
            case ItemKind.ARTIFACT:
                assert each.name not in references.artifacts
            case ItemKind.LAYER:
                assert each.name not in mounted
            case ItemKind.ARCHIVE:
                assert each.name not in references.archives
            case ItemKind.LOG:
                service, _, file = each.name.partition("/")
                writers = references.deployments | references.instances
                assert service not in references.services or file[0] not in writers
            case ItemKind.CACHE | ItemKind.LEFTOVER | ItemKind.TOOLCHAIN:
                assert each.kind is not ItemKind.TOOLCHAIN
        if each.kind in {ItemKind.ARTIFACT, ItemKind.ARCHIVE, ItemKind.INSTANCE}:
            assert NOW - each.used_at >= LIMITS.unneeded_kept_s
            assert NOW - since.get(each.key, NOW) >= LIMITS.unneeded_kept_s
    if any(
        each.running and each.name not in references.instances
        for each in disk
        if each.kind is ItemKind.INSTANCE
    ):
        assert not {ItemKind.ARTIFACT, ItemKind.LAYER} & {each.kind for each in gone}


@given(DISKS, REFERENCES)
def test_caches_are_within_their_limit_or_gone(disk: list[Item], references: References) -> None:
    disk = [each for each in disk if each.kind is not ItemKind.INSTANCE]
    found = plan_garbage(disk, references, {}, LIMITS, NOW)
    gone = set(found.remove)
    assert found.usage.caches <= LIMITS.caches_bytes_max
    mounted = {
        layer
        for each in disk
        if each.kind is ItemKind.ARTIFACT and each not in gone
        for layer in each.layers
    }
    caches = [
        each
        for each in disk
        if each.kind is ItemKind.CACHE or (each.kind is ItemKind.LAYER and each.name not in mounted)
    ]
    evicted = [each for each in caches if each in gone]
    kept = [each for each in caches if each not in gone]
    assert sum(each.size_bytes for each in kept) == found.usage.caches
    # Never one that was used later than one that stays, and no more than had to go.
    assert all(out.used_at <= stays.used_at for out in evicted for stays in kept)
    if evicted:
        last = max(evicted, key=lambda each: (each.used_at, each.key))
        assert found.usage.caches + last.size_bytes > LIMITS.caches_bytes_max


@given(DISKS, REFERENCES)
def test_two_looks_later_nothing_unneeded_is_left(disk: list[Item], references: References) -> None:
    since: Mapping[Key, float] = {}
    # An instance that runs without a row holds artifacts back for one look.
    for now in (NOW + 2000, NOW + 4000, NOW + 6000):
        found = plan_garbage(disk, references, since, LIMITS, now)
        assert set(found.unneeded_since) <= {each.key for each in disk}, "marks do not pile up"
        disk = [each for each in disk if each not in found.remove]
        since = found.unneeded_since
    for each in disk:
        if each.kind is ItemKind.ARTIFACT:
            assert each.name in references.artifacts
        if each.kind is ItemKind.ARCHIVE:
            assert each.name in references.archives
        if each.kind is ItemKind.LOG:
            assert each.name[0] in references.services
        assert each.kind is not ItemKind.LEFTOVER
