"""Results are there whole or not at all, and what is in use cannot be removed."""

import os
from pathlib import Path

import pytest

from tramontane.builders.garbage import BuildStorage
from tramontane.builders.store import Lock, Store, use_key
from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.domain.inventory import Item, ItemKind

SIZE = 100_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.ensure_folders()
    return store


@pytest.fixture
def storage(store: Store) -> BuildStorage:
    return BuildStorage(store.root)


def add(store: Store, name: str, *layers: str) -> str:
    digest = f"sha256:{name}"
    artifact = Artifact(
        digest=digest,
        language="go",
        command=("/app/.tram/app",),
        directory="/app",
        mounts=(Mount(source="/s", target="/app"),),
        environment=(("A", "1"),),
        listen=Listen.UNIX,
    )
    staged = store.make_staging(f"build-{name}")
    (staged / "data").write_bytes(os.urandom(SIZE))
    store.write_artifact(staged, artifact, layers)
    store.publish(staged, store.artifact_folder(digest))
    assert store.read_artifact(digest) == artifact
    return digest


def add_layer(store: Store, key: str) -> None:
    staged = store.make_staging(f"layer-{key}")
    (staged / "data").write_bytes(os.urandom(SIZE))
    store.write_layer(staged)
    store.publish(staged, store.layers / key)


def add_cache(store: Store, name: str) -> Path:
    path = store.caches / name
    path.mkdir(parents=True)
    (path / "data").write_bytes(os.urandom(SIZE))
    return path


def find(storage: BuildStorage, kind: ItemKind) -> dict[str, Item]:
    return {each.name: each for each in storage.list_items() if each.kind is kind}


def yes() -> bool:
    return True


def no() -> bool:
    return False


def test_everything_is_listed_with_its_size(store: Store, storage: BuildStorage) -> None:
    digest = add(store, "one", "l1")
    add_layer(store, "l1")
    add_cache(store, "shop/uv")
    (store.toolchains / "node").mkdir()
    items = {each.name: each for each in storage.list_items()}
    assert set(items) == {digest, "l1", "shop/uv", "node"}
    assert items[digest].layers == ("l1",)
    for name in (digest, "l1", "shop/uv"):
        assert SIZE <= items[name].size_bytes < SIZE + 20_000
    os.utime(store.artifact_folder(digest) / "artifact.json", (7, 7))
    assert {each.name: each.used_at for each in storage.list_items()}[digest] == 7
    store.mark_used(digest)
    assert {each.name: each.used_at for each in storage.list_items()}[digest] > 7


def test_what_an_older_version_built_is_measured(store: Store, storage: BuildStorage) -> None:
    folder = store.artifacts / "old"
    folder.mkdir()
    (folder / "artifact.json").write_text('{"layers": ["l1"]}')
    (folder / "data").write_bytes(os.urandom(SIZE))
    (store.artifacts / "half").mkdir()
    items = find(storage, ItemKind.ARTIFACT)
    assert items["sha256:old"].layers == ("l1",)
    assert items["sha256:old"].size_bytes >= SIZE
    assert storage.remove(items["sha256:half"], yes)


async def test_an_artifact_in_use_stays_and_goes_afterwards(
    store: Store, storage: BuildStorage
) -> None:
    digest = add(store, "one")
    item = find(storage, ItemKind.ARTIFACT)[digest]
    async with store.hold(store.artifact_folder(digest)), store.hold(store.artifact_folder(digest)):
        assert not storage.remove(item, yes)
    assert not storage.remove(item, no), "a row names it by now"
    assert store.read_artifact(digest)
    assert storage.remove(item, yes)
    assert store.read_artifact(digest) is None
    assert not storage.remove(item, yes), "it is gone already"
    assert list(store.staging.iterdir()) == []
    assert list(store.locks.iterdir()) == []


async def test_a_layer_is_kept_by_a_build_and_then_by_its_artifact(
    store: Store, storage: BuildStorage
) -> None:
    add_layer(store, "l1")
    layer = find(storage, ItemKind.LAYER)["l1"]
    async with store.hold(store.layers / "l1"):
        assert not storage.remove(layer, yes)
        # The plan was made before this one existed, and may not know it.
        digest = add(store, "one", "l1")
    assert not storage.remove(layer, yes)
    assert storage.remove(find(storage, ItemKind.ARTIFACT)[digest], yes)
    assert storage.remove(layer, yes)


async def test_caches_of_a_scope_stay_while_one_of_its_builds_runs(
    store: Store, storage: BuildStorage
) -> None:
    add_cache(store, "shop/uv")
    add_cache(store, "other/uv")
    items = find(storage, ItemKind.CACHE)
    async with store.hold(store.caches / "shop"):
        assert not storage.remove(items["shop/uv"], yes)
        assert storage.remove(items["other/uv"], yes)
    assert storage.remove(items["shop/uv"], yes)
    assert not find(storage, ItemKind.CACHE)


def test_a_cache_is_measured_anew_after_it_was_used(store: Store, storage: BuildStorage) -> None:
    cache = add_cache(store, "shop/uv")
    os.utime(store.caches / "shop", (1, 1))
    before = find(storage, ItemKind.CACHE)["shop/uv"]
    (cache / "more").write_bytes(os.urandom(SIZE))
    assert find(storage, ItemKind.CACHE)["shop/uv"] == before, "nobody said that it was used"
    os.utime(store.caches / "shop", (2, 2))
    assert find(storage, ItemKind.CACHE)["shop/uv"].size_bytes >= before.size_bytes + SIZE


def test_a_link_that_a_build_left_in_its_cache_is_not_followed(
    store: Store, storage: BuildStorage, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "data").write_bytes(os.urandom(SIZE))
    (store.caches / "shop").mkdir()
    (store.caches / "shop" / "link").symlink_to(outside)
    (store.caches / "shop" / "broken").symlink_to(tmp_path / "nowhere")
    items = find(storage, ItemKind.CACHE)
    assert {each.size_bytes for each in items.values()} == {0}
    assert all(storage.remove(each, yes) for each in items.values())
    assert (outside / "data").exists()
    assert list((store.caches / "shop").iterdir()) == []


async def test_what_crashes_left_goes_and_what_a_build_works_on_stays(
    store: Store, storage: BuildStorage
) -> None:
    left, working = store.make_staging("build-x"), store.make_staging("build-y")
    (left / "half").touch()
    (store.locks / "build-x").touch()
    async with store.lock("build-y"):
        items = find(storage, ItemKind.LEFTOVER)
        assert set(items) == {left.name}
        assert storage.remove(items[left.name], yes)
        assert not storage.remove(Item(kind=ItemKind.LEFTOVER, name=working.name), yes)
        assert not left.exists()
        assert working.exists()
        assert [each.name for each in store.locks.iterdir()] == ["build-y"]


def test_a_removal_that_was_killed_is_ended_by_the_next_look(
    store: Store, storage: BuildStorage
) -> None:
    digest = add(store, "one")
    away = store.take_away(store.artifact_folder(digest))
    assert store.read_artifact(digest) is None, "it is gone as a whole"
    item = find(storage, ItemKind.LEFTOVER)[away.name]
    assert storage.remove(item, yes)
    assert list(store.staging.iterdir()) == []


async def test_one_holds_a_lock_alone_although_its_file_is_deleted_in_between(store: Store) -> None:
    first = store.try_lock("k")
    assert first is not None
    assert store.try_lock("k") is None
    # Opened while the first has it, and tried when the first has deleted the file.
    descriptor = os.open(store.locks / "k", os.O_RDWR)
    waiting = Lock(store.locks / "k", descriptor)
    first.free()
    second = store.try_lock("k")
    assert second is not None
    assert not waiting.take(shared=False)
    os.close(descriptor)
    assert store.try_lock("k") is None
    second.free()
    assert not (store.locks / "k").exists()
    async with store.lock("k", shared=True):
        shared = store.try_lock("k", shared=True)
        assert shared is not None
        shared.free()
        assert store.try_lock("k") is None, "the other one still holds it"


def test_use_keys_tell_kinds_apart(store: Store) -> None:
    keys = {use_key(each / "x") for each in (store.artifacts, store.layers, store.caches)}
    assert len(keys) == 3


def test_a_new_holder_clears_what_the_last_one_left(store: Store) -> None:
    left = store.make_staging("build-x")
    other = store.make_staging("build-y")
    (left / "half").touch()
    assert store.make_staging("build-x").is_dir()
    assert not left.exists()
    assert other.exists()


def test_publishing_what_is_there_keeps_it(store: Store) -> None:
    for text in ("first", "second"):
        staged = store.make_staging("build-x")
        (staged / "f").write_text(text)
        store.publish(staged, store.layers / "x")
    assert (store.layers / "x" / "f").read_text() == "first"
    assert list(store.staging.iterdir()) == []
