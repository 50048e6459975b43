"""Which files make a model, and which weights go when room is needed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tramontane.base.errors import InvalidRequest
from tramontane.domain.weights import RemoteFile
from tramontane.plan.weights import Holding, Room, RoomLimits, choose_files, plan_room

GIB = 1024**3


def offer(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name=name, size_bytes=GIB, location=name) for name in names]


def choose(files: list[RemoteFile], wanted: str = "") -> list[str]:
    return [each.name for each in choose_files(files, wanted, "hf://o/r")]


def refuse(files: list[RemoteFile], wanted: str = "") -> str:
    with pytest.raises(InvalidRequest) as refused:
        choose_files(files, wanted, "hf://o/r")
    assert "hf://o/r" in refused.value.message
    return refused.value.message


def test_the_one_gguf_is_the_model_and_its_papers_come_along() -> None:
    paper = RemoteFile(name="README.md", size_bytes=100, location="README.md")
    large = RemoteFile(name="LICENSE", size_bytes=2 * 1024**2, location="LICENSE")
    files = [*offer("m.gguf", "mmproj-m.gguf", "config.json", "x.safetensors"), paper, large]
    assert choose(files) == ["README.md", "m.gguf"]


def test_several_ggufs_are_a_question_with_sizes() -> None:
    said = refuse(offer("q8.gguf", "q4.gguf"))
    assert "several models, name the file of one: q4.gguf (1 GiB), q8.gguf (1 GiB)" in said
    assert choose(offer("q8.gguf", "q4.gguf"), "q4.gguf") == ["q4.gguf"]


def test_all_parts_of_a_split_model_belong_together() -> None:
    parts = [f"q4/m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    assert choose(offer(*parts)) == parts
    assert choose(offer(*parts, "other.gguf"), parts[0]) == parts
    assert "has 3 parts, of which 2 are there" in refuse(offer(*parts[:2]))
    assert "q4/m-00001-of-00003.gguf (3 GiB)" in refuse(offer(*parts, "other.gguf"))


def test_safetensors_come_with_what_an_engine_reads_and_nothing_that_runs() -> None:
    names = ["config.json", "model-1.safetensors", "model-2.safetensors", "tokenizer.model"]
    beside = ["modeling.py", "pytorch_model.bin", "original/x.safetensors", "picture.png"]
    assert choose(offer(*names, *beside, "consolidated.safetensors")) == names
    assert choose(offer("consolidated.safetensors", "params.json")) == [
        "consolidated.safetensors",
        "params.json",
    ]


def test_what_cannot_be_loaded_is_refused_with_the_reason() -> None:
    assert "pickles, which run code" in refuse(offer("pytorch_model.bin", "config.json"))
    assert "none of its 1 files is .gguf or .safetensors" in refuse(offer("README.md"))
    assert "there is nothing" in refuse([])
    assert "no file x.gguf; there are m.gguf" in refuse(offer("m.gguf", "a.txt"), "x.gguf")
    assert "file of the name '../m.gguf'" in refuse(offer("../m.gguf"))


LIMITS = RoomLimits(bytes_max=100, free_bytes_min=10)


def hold(key: str, size: int, used_at: float = 0.0, *shared: tuple[str, int]) -> Holding:
    return Holding(key=key, files=frozenset({(key, size), *shared}), used_at=used_at)


def test_the_least_recently_used_make_room_and_no_more_than_needed() -> None:
    holdings = [hold("small", 5, 1.0), hold("old", 40, 2.0), hold("new", 40, 3.0)]
    assert plan_room(holdings, (), 15, 1000, LIMITS) == Room()
    assert plan_room(holdings, (), 20, 1000, LIMITS) == Room(evict=("small",))
    # "small" alone does not help, and with "old" gone it is not needed.
    assert plan_room(holdings, (), 50, 1000, LIMITS) == Room(evict=("old",))
    assert plan_room(holdings, (), 100, 1000, LIMITS) == Room(evict=("small", "old", "new"))


def test_what_is_in_use_stays_and_a_refusal_has_the_numbers() -> None:
    holdings = [hold("a", 60, 1.0), hold("b", 30, 2.0)]
    room = plan_room(holdings, {"a"}, 50, 1000, LIMITS)
    assert room.evict == ()
    assert room.refusal == (
        "it needs 50 B more; weights may take 100 B and take 90 B, of which 60 B are in use; "
        "the disk has 1000 B free, and 10 B stay free"
    )


def test_the_disk_counts_as_the_limit_does() -> None:
    holdings = [hold("a", 30)]
    assert plan_room(holdings, (), 40, 50, LIMITS) == Room()
    assert plan_room(holdings, (), 41, 50, LIMITS) == Room(evict=("a",))
    assert plan_room(holdings, (), 71, 50, LIMITS).refusal


def test_evicting_one_of_two_that_share_a_file_frees_only_its_own() -> None:
    shared = ("shared", 50)
    holdings = [hold("a", 10, 1.0, shared), hold("b", 10, 2.0, shared)]
    assert plan_room(holdings, (), 40, 1000, LIMITS) == Room(evict=("a",))
    assert plan_room(holdings, {"b"}, 60, 1000, LIMITS).refusal
    assert plan_room(holdings, (), 60, 1000, LIMITS) == Room(evict=("a", "b"))


def test_a_lower_limit_is_kept_as_far_as_what_is_in_use_allows() -> None:
    holdings = [hold("a", 200, 1.0), hold("b", 30, 2.0), hold("c", 30, 3.0)]
    assert plan_room(holdings, {"a", "c"}, 0, 1000, LIMITS) == Room(evict=("b",))


@given(
    holdings=st.lists(
        st.builds(
            lambda number, files, used_at: Holding(
                key=f"k{number}",
                files=frozenset((f"f{each}", 7 * each) for each in files),
                used_at=used_at,
            ),
            st.integers(0, 1000),
            st.sets(st.integers(1, 12), max_size=4),
            st.floats(0, 100),
        ),
        max_size=7,
        unique_by=lambda each: each.key,
    ),
    used=st.sets(st.integers(0, 6)),
    needed=st.integers(0, 300),
    free=st.integers(0, 300),
    limit=st.integers(0, 300),
)
def test_room_is_made_without_touching_what_is_used(
    holdings: list[Holding], used: set[int], needed: int, free: int, limit: int
) -> None:
    in_use = {each.key for index, each in enumerate(holdings) if index in used}
    limits = RoomLimits(bytes_max=limit, free_bytes_min=20)
    room = plan_room(holdings, in_use, needed, free, limits)
    assert not in_use.intersection(room.evict)

    def size(keys: set[str]) -> int:
        return sum(
            size for _, size in {f for each in holdings if each.key in keys for f in each.files}
        )

    def fits(kept: set[str]) -> bool:
        freed = size(everything) - size(kept)
        return size(kept) + needed <= limit and free + freed - needed >= 20

    everything = {each.key for each in holdings}
    if room.refusal:
        assert needed
        assert not room.evict
        assert not fits(in_use)
    elif needed:
        kept = everything - set(room.evict)
        assert fits(kept)
        assert not any(fits(kept | {each}) for each in room.evict)
