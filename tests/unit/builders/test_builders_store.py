"""Results are there whole or not at all, and garbage collection spares what is in use."""

import os
from pathlib import Path

from tramontane.builders.garbage import collect_garbage
from tramontane.builders.store import STORE_LOCK, Store
from tramontane.domain.artifact import Artifact, Listen, Mount
from tramontane.testing.clocks import FakeClock

SIZE = 100_000


def make_store(root: Path) -> Store:
    store = Store(root)
    store.ensure_folders()
    return store


def add(store: Store, name: str, layers: list[str], used_at: float) -> str:
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
    os.utime(store.artifact_folder(digest) / "artifact.json", (used_at, used_at))
    return digest


def add_layer(store: Store, key: str) -> None:
    staged = store.make_staging(f"layer-{key}")
    (staged / "data").write_bytes(os.urandom(SIZE))
    store.publish(staged, store.layers / key)
    os.utime(store.layers / key, (1, 1))


def test_the_least_recently_used_goes_first_and_used_ones_stay(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    clock = FakeClock()
    old = clock.now() - 1_000_000
    in_use = add(store, "used", ["l1"], old)
    first = add(store, "first", ["l2"], old + 1)
    add(store, "second", [], old + 2)
    fresh = add(store, "fresh", [], clock.now())
    add_layer(store, "l1")
    add_layer(store, "l2")
    keep_all = collect_garbage(tmp_path, {in_use}, bytes_max=10**9, clock=clock)
    assert keep_all.removed == ()
    some = collect_garbage(tmp_path, {in_use}, bytes_max=5 * SIZE + 60_000, clock=clock)
    assert some.removed == (first,)
    rest = collect_garbage(tmp_path, {in_use}, bytes_max=0, clock=clock)
    assert rest.removed == ("sha256:second", "l2")
    assert store.read_artifact(in_use)
    assert store.read_artifact(fresh)
    assert (store.layers / "l1").is_dir()


def test_collection_waits_for_builds_and_clears_what_crashes_left(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    left = store.make_staging("build-x")
    lock = store.try_lock(STORE_LOCK)
    assert lock is not None
    assert not collect_garbage(tmp_path, set(), bytes_max=0, clock=FakeClock()).ran
    assert left.exists()
    os.close(lock)
    assert collect_garbage(tmp_path, set(), bytes_max=0, clock=FakeClock()).ran
    assert not left.exists()


def test_a_new_holder_clears_what_the_last_one_left(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    left = store.make_staging("build-x")
    other = store.make_staging("build-y")
    (left / "half").touch()
    assert store.make_staging("build-x").is_dir()
    assert not left.exists()
    assert other.exists()


def test_publishing_what_is_there_keeps_it(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for text in ("first", "second"):
        staged = store.make_staging("build-x")
        (staged / "f").write_text(text)
        store.publish(staged, store.layers / "x")
    assert (store.layers / "x" / "f").read_text() == "first"
    assert list(store.staging.iterdir()) == []
