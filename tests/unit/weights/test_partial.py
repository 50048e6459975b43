"""A file on its way: what a crash at any point leaves is used or thrown away, never believed."""

import os
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tramontane.domain.weights import Algorithm
from tramontane.weights.contents import begin_hash
from tramontane.weights.partial import Partial

CONTENT = bytes(range(250)) * 4


def hold(folder: Path, size: int = len(CONTENT), part: int = 300) -> Partial:
    partial = Partial.hold(folder, size, part)
    assert partial is not None
    return partial


def fill(partial: Partial, *numbers: int) -> None:
    for part in partial.missing:
        if part.number in numbers:
            partial.write(CONTENT[part.start : part.end], part.start)
            partial.note(part, part.end)


def test_parts_cover_the_file_and_survive_the_process(tmp_path: Path) -> None:
    with closing(hold(tmp_path / "p")) as partial:
        cut = [(each.start, each.end) for each in partial.missing]
        assert cut == [(0, 300), (300, 600), (600, 900), (900, 1000)]
        fill(partial, 1, 3)
    with closing(hold(tmp_path / "p")) as partial:
        assert [each.number for each in partial.missing] == [0, 2]
        assert partial.bytes_left == 600
        fill(partial, 0, 2)
        assert partial.missing == []
        partial.publish(tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == CONTENT
    assert (tmp_path / "blob").stat().st_mode & 0o777 == 0o444
    assert not (tmp_path / "p").exists()


def test_a_part_goes_on_where_it_was_noted_last(tmp_path: Path) -> None:
    with closing(hold(tmp_path / "p")) as partial:
        part = partial.missing[1]
        partial.write(CONTENT[300:450], 300)
        partial.note(part, 400)
        partial.note(part, 450)
    with closing(hold(tmp_path / "p")) as partial:
        again = partial.missing[1]
        assert (again.number, again.start, again.end) == (1, 450, 600)
        assert partial.bytes_left == 850
        fill(partial, *range(4))
        partial.publish(tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == CONTENT


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    with closing(hold(tmp_path / "p", 0)) as partial:
        (part,) = partial.missing
        assert (part.start, part.end) == (0, 0)
        partial.note(part, 0)
        assert partial.missing == []
        partial.publish(tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == b""


def test_one_at_a_time_and_the_next_goes_on(tmp_path: Path) -> None:
    with closing(hold(tmp_path / "p")) as partial:
        fill(partial, 0)
        assert Partial.hold(tmp_path / "p", len(CONTENT), 300) is None
    with closing(hold(tmp_path / "p")) as partial:
        assert len(partial.missing) == 3


def test_another_size_or_cut_begins_anew(tmp_path: Path) -> None:
    for size, part in ((len(CONTENT), 300), (len(CONTENT) + 1, 300), (len(CONTENT) + 1, 400)):
        with closing(hold(tmp_path / "p", size, part)) as partial:
            assert partial.bytes_left == size
            fill(partial, 0)
            assert partial.bytes_left == size - part


def test_digests_are_those_of_the_algorithms(tmp_path: Path) -> None:
    with closing(hold(tmp_path / "p", 6, 6)) as partial:
        partial.write(b"hello\n", 0)
        partial.note(partial.missing[0], 6)
        hashes = {each: begin_hash(each, 6) for each in Algorithm}
        partial.feed(list(hashes.values()), lambda: False)
    digests = {key: value.hexdigest() for key, value in hashes.items()}
    assert digests[Algorithm.MD5] == "b1946ac92492d2347c6235b4d2611184"
    # As `git hash-object` prints it.
    assert digests[Algorithm.GIT] == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert digests[Algorithm.SHA256].startswith("5891b5b522d5df08")


@settings(max_examples=60, deadline=None)
@given(
    whole=st.sets(st.integers(0, 3)),
    cut=st.integers(0, 12),
    half=st.integers(1, 99),
)
def test_whatever_a_kill_cuts_off_is_fetched_again(
    tmp_path_factory: pytest.TempPathFactory, whole: set[int], cut: int, half: int
) -> None:
    folder = tmp_path_factory.mktemp("partial") / "p"
    with closing(hold(folder)) as partial:
        fill(partial, *whole)
        # Parts that were under way, and a list that ends in the middle of a line.
        for part in partial.missing:
            partial.write(CONTENT[part.start : part.start + half], part.start)
            partial.note(part, part.start + half)
            partial.write(b"?", part.start + half)
    journal = folder / "parts"
    os.truncate(journal, max(journal.stat().st_size - cut, 0))
    with closing(hold(folder)) as partial:
        assert {each.number for each in partial.missing} >= set(range(4)) - whole
        assert partial.bytes_left >= sum(300 - half for _ in range(3 - len(whole - {3})))
        left = [each.number for each in partial.missing]
        fill(partial, *left[:1])
    with closing(hold(folder)) as partial:
        assert [each.number for each in partial.missing] == left[1:]
        fill(partial, *range(4))
        partial.publish(folder.with_name("blob"))
    assert folder.with_name("blob").read_bytes() == CONTENT
