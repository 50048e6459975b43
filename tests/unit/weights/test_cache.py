"""The cache of weights: what is shared, what is removed, and what a crash leaves."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.domain.weights import Algorithm, Checksum, Model, RemoteFile, StoredFile
from tramontane.weights.cache import BLOB, PARTIAL, Cache, identity_of

NOW = 1_800_000_000.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "weights")
    made.ensure_folders()
    return made


def put(cache: Cache, name: str, content: bytes) -> StoredFile:
    sha256 = hashlib.sha256(content).hexdigest()
    cache.blob(sha256).write_bytes(content)
    return StoredFile(name=name, size_bytes=len(content), sha256=sha256)


def publish(cache: Cache, reference: str, *files: StoredFile, now: float = NOW) -> Model:
    model = Model(files=files)
    cache.publish(reference, model, now)
    return model


def blobs(cache: Cache) -> set[bytes]:
    return {each.read_bytes() for each in cache.blobs.iterdir()}


def test_a_model_is_found_by_its_reference_and_read_by_its_names(cache: Cache) -> None:
    model = publish(cache, "hf://o/r@1", put(cache, "m.gguf", b"one"), put(cache, "a/b", b"two"))
    assert cache.find("hf://o/r@1") == model
    assert cache.find("hf://o/r@2") is None
    folder = cache.folder(model)
    assert (folder / "m.gguf").read_bytes() == b"one"
    assert (folder / "a/b").read_bytes() == b"two"
    assert (folder / "m.gguf").resolve().parent == cache.blobs.resolve()
    cache.publish("s3://copy#1", model, NOW + 1)
    (listed,) = cache.list_models()
    assert listed.references == ("hf://o/r@1", "s3://copy#1")
    assert (listed.fetched_at, listed.used_at) == (NOW, NOW + 1)


def test_two_models_share_what_is_the_same_and_keep_it_for_each_other(cache: Cache) -> None:
    one = publish(cache, "one", put(cache, "config.json", b"{}"), put(cache, "m.gguf", b"one"))
    two = publish(cache, "two", put(cache, "config.json", b"{}"), put(cache, "m.gguf", b"two"))
    assert blobs(cache) == {b"{}", b"one", b"two"}
    cache.evict(one.digest)
    assert blobs(cache) == {b"{}", b"two"}
    assert cache.find("one") is None
    assert cache.find("two") == two
    cache.evict(two.digest)
    assert not blobs(cache)
    assert not list(cache.models.iterdir())


def test_a_model_that_lost_a_file_is_not_found_and_can_be_completed(cache: Cache) -> None:
    model = publish(cache, "one", put(cache, "a", b"1"), put(cache, "b", b"2"))
    cache.blob(model.files[0].sha256).unlink()
    assert cache.find("one") is None
    assert cache.list_models() == []
    assert [each.key for each in cache.holdings()] == [model.digest]
    publish(cache, "one", put(cache, "a", b"1"), put(cache, "b", b"2"))
    assert cache.find("one") == model


def remote(name: str, content: bytes, algorithm: Algorithm | None) -> RemoteFile:
    value = {
        Algorithm.SHA256: hashlib.sha256(content).hexdigest(),
        Algorithm.MD5: hashlib.md5(content).hexdigest(),
    }
    checksum = None
    if algorithm is not None:
        checksum = Checksum(algorithm=algorithm, value=value[algorithm])
    return RemoteFile(
        name=name, size_bytes=len(content), location=name, checksum=checksum, version="1"
    )


def test_a_content_is_known_anywhere_by_sha256_and_within_its_source_by_less(
    cache: Cache,
) -> None:
    stored = put(cache, "m.gguf", b"one")
    strong, weak = (remote("x", b"one", each) for each in (Algorithm.SHA256, Algorithm.MD5))
    assert cache.find_file(strong, "anywhere") is not None
    assert cache.find_file(weak, "here") is None
    cache.note_content(weak, "here", stored.sha256)
    assert cache.find_file(weak, "here") is not None
    assert cache.find_file(weak, "there") is None
    newer = RemoteFile(name="x", size_bytes=3, location="x", version="2")
    assert identity_of(weak, "here") != identity_of(newer, "here")


def test_what_is_missing_counts_each_content_once_and_what_is_here_not(cache: Cache) -> None:
    put(cache, "here", b"12345")
    files = [
        remote("here", b"12345", Algorithm.SHA256),
        remote("a", b"abcdefgh", Algorithm.SHA256),
        remote("copy of a", b"abcdefgh", Algorithm.SHA256),
        remote("b", b"xyz", None),
    ]
    assert cache.missing_bytes(files, "s") == 11
    folder = cache.partial_folder(files[1], "s")
    folder.mkdir()
    (folder / "data").write_bytes(b"abcd" * 2000)
    assert cache.missing_bytes(files, "s") == 3


def test_leftovers_take_room_until_they_are_evicted(cache: Cache) -> None:
    stored = put(cache, "m.gguf", b"one")
    file = remote("b", b"x" * 9000, None)
    folder = cache.partial_folder(file, "s")
    folder.mkdir()
    (folder / "data").write_bytes(b"x" * 9000)
    keys = {each.key for each in cache.holdings()}
    assert keys == {f"{BLOB}{stored.sha256}", f"{PARTIAL}{identity_of(file, 's')}"}
    fetched = [remote("m.gguf", b"one", Algorithm.SHA256), file]
    assert keys <= cache.keys_of(fetched, "s")
    for key in keys:
        cache.evict(key)
    assert cache.holdings() == []


@settings(max_examples=30, deadline=None)
@given(
    models=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.binary(min_size=1, max_size=2), min_size=1),
        min_size=1,
        max_size=4,
    ),
    killed_after=st.integers(0, 12),
)
def test_a_crash_while_evicting_leaves_no_model_without_its_files(
    tmp_path_factory: pytest.TempPathFactory,
    models: list[dict[str, bytes]],
    killed_after: int,
) -> None:
    cache = Cache(tmp_path_factory.mktemp("weights"))
    cache.ensure_folders()
    for number, files in enumerate(models):
        stored = [put(cache, name, content) for name, content in files.items()]
        publish(cache, f"model {number}", *stored)
    victim = cache.list_models()[0].model.digest
    with pytest.MonkeyPatch.context() as patch, killed(patch, killed_after):
        cache.evict(victim)
    for number, files in enumerate(models):
        found = cache.find(f"model {number}")
        if found is not None:
            for each in found.files:
                assert cache.blob(each.sha256).read_bytes() == files[each.name]
        else:
            assert Model(files=tuple(put(cache, n, c) for n, c in files.items())).digest == victim
    if any(each.model.digest == victim for each in cache.list_models()):
        cache.evict(victim)
    for holding in cache.holdings():
        cache.evict(holding.key)
    assert not blobs(cache)


class _Killed(BaseException):
    pass


class killed:  # noqa: N801 - reads as a sentence
    """Ends the block at the so-and-so-manieth removal of a file."""

    def __init__(self, patch: pytest.MonkeyPatch, after: int) -> None:
        self._left = after
        unlink = Path.unlink

        def counting(path: Path, missing_ok: bool = False) -> None:
            if self._left == 0:
                raise _Killed
            self._left -= 1
            unlink(path, missing_ok=missing_ok)

        patch.setattr(Path, "unlink", counting)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, traceback: object) -> bool:
        return isinstance(error, _Killed)
