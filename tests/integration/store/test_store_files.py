"""What the store promises about files and batches, held against every database it runs on."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tramontane.base.errors import Conflict, InvalidRequest, NotFound
from tramontane.domain.batch import Batch, BatchError, BatchStatus
from tramontane.domain.files import ProjectFile
from tramontane.store.batches import BatchFilter
from tramontane.store.paging import Page
from tramontane.store.store import Store
from tramontane.testing.batches import make_batch

DIGEST = "sha256:" + "0" * 64


def make_file(number: int, **values: object) -> ProjectFile:
    base = ProjectFile(
        id=f"file_{number}",
        project="shop",
        name="in.jsonl",
        purpose="batch",
        size_bytes=10,
        lines=1,
        digest=DIGEST,
        created_at=float(number // 2),
    )
    return replace(base, **values)  # type: ignore[arg-type]


def test_files_are_listed_in_order_also_those_of_one_moment(store: Store) -> None:
    for number in range(6):
        assert store.add_file(make_file(number))
    page = store.list_files("shop", Page(limit=4), now=0.0)
    assert [each.id for each in page.files] == ["file_5", "file_4", "file_3", "file_2"]
    assert (page.more, page.total) == (True, 6)
    rest = store.list_files("shop", Page(limit=4, after="file_2"), now=0.0)
    assert [each.id for each in rest.files] == ["file_1", "file_0"]
    assert not rest.more
    with pytest.raises(NotFound):
        store.list_files("elsewhere", Page(limit=4, after="file_2"), now=0.0)


def test_two_uploads_at_once_share_the_room_of_a_project(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        added = list(
            pool.map(lambda n: store.add_file(make_file(n), project_bytes_max=35), range(16))
        )
    assert sum(added) == 3
    assert store.sum_file_bytes("shop") == 30


def test_expired_files_are_forgotten(store: Store) -> None:
    store.add_file(make_file(1, expires_at=5.0))
    store.add_file(make_file(2))
    assert store.forget_expired_files(4.9) == 0
    assert store.forget_expired_files(5.0) == 1
    assert store.list_known_files(["file_1", "file_2", "file_3"]) == {"file_2"}


def test_files_go_with_their_project(store: Store) -> None:
    store.add_file(make_file(1))
    store.delete_project("shop")
    assert store.list_known_files(["file_1"]) == set()


def add_batch(store: Store, **values: object) -> Batch:
    store.add_file(make_file(1))
    batch = make_batch(**values)
    store.add_batch(batch)
    return batch


def test_a_batch_comes_back_as_it_was_written(store: Store) -> None:
    batch = add_batch(
        store,
        metadata={"a": "é\u0001"},
        errors=(BatchError(code="x", message="y", line=3),),
        moments={BatchStatus.VALIDATING: 5.5},
    )
    assert store.read_batch("shop", "batch_1") == batch
    assert store.find_batch("batch_2") is None
    with pytest.raises(NotFound):
        store.read_batch("elsewhere", "batch_1")


def test_a_batch_needs_its_files_until_it_is_over(store: Store) -> None:
    with pytest.raises(NotFound):
        store.add_batch(make_batch())
    batch = add_batch(store)
    with pytest.raises(InvalidRequest):
        store.add_batch(make_batch(id="batch_2", input_files=("file_1", "file_9")))
    with pytest.raises(Conflict):
        store.delete_file("shop", "file_1")
    assert store.list_known_files(["file_2", "file_3"]) >= {"file_2", "file_3"}
    assert store.list_open_batches() == ["batch_1"]
    assert store.advance_batch(batch, BatchStatus.FAILED, 6.0)
    assert store.list_open_batches() == []
    store.delete_file("shop", "file_1")
    assert store.list_known_files(["file_1", "file_2"]) == set()


def test_a_file_is_deleted_or_needed_never_both(store: Store) -> None:
    def race(number: int) -> bool:
        store.add_file(make_file(number))
        batch = make_batch(id=f"batch_{number}", input_files=(f"file_{number}",))
        with ThreadPoolExecutor(2) as pool:
            added = pool.submit(store.add_batch, batch)
            deleted = pool.submit(store.delete_file, "shop", f"file_{number}")
        there = deleted.exception() is not None
        assert (added.exception() is None) == there
        return there

    for number in range(20):
        race(number)


def test_a_user_and_a_reconciler_do_not_overwrite_each_other(store: Store) -> None:
    seen = add_batch(store)
    store.cancel_batch("shop", "batch_1", now=6.0)
    assert not store.advance_batch(seen, BatchStatus.IN_PROGRESS, 7.0)
    cancelling = store.read_batch("shop", "batch_1")
    assert cancelling.status is BatchStatus.CANCELLING
    assert store.cancel_batch("shop", "batch_1", now=8.0) == cancelling
    assert store.advance_batch(cancelling, BatchStatus.CANCELLED, 9.0, counts={"failed": 2})
    ended = store.read_batch("shop", "batch_1")
    assert (ended.failed, ended.moments[BatchStatus.CANCELLED]) == (2, 9.0)
    store.delete_batch("shop", "batch_1")
    assert not store.advance_batch(ended, BatchStatus.CANCELLED, 10.0)


def test_errors_add_up(store: Store) -> None:
    batch = add_batch(store)
    first, second = (BatchError(code=code, message="m") for code in "ab")
    store.advance_batch(batch, BatchStatus.IN_PROGRESS, 1.0, errors=[first])
    store.advance_batch(
        replace(batch, status=BatchStatus.IN_PROGRESS), BatchStatus.FINALIZING, 2.0, errors=[second]
    )
    assert store.read_batch("shop", "batch_1").errors == (first, second)


def test_batches_are_found_by_what_is_known_of_them(store: Store) -> None:
    for number in range(4):
        add_batch(
            store,
            id=f"batch_{number}",
            created_at=float(number),
            model="tiny" if number % 2 else None,
            key_id=f"tok_{number}",
        )
    store.cancel_batch("shop", "batch_3", now=9.0)

    def find(**values: object) -> list[str]:
        wanted = BatchFilter(**values)  # type: ignore[arg-type]
        return [each.id for each in store.list_batches("shop", Page(limit=9), wanted).batches]

    assert find() == ["batch_3", "batch_2", "batch_1", "batch_0"]
    assert find(model="tiny") == ["batch_3", "batch_1"]
    assert find(key_id="tok_2") == ["batch_2"]
    assert find(created_after=1.0) == ["batch_3", "batch_2"]
    assert find(statuses=[BatchStatus.CANCELLING]) == ["batch_3"]
    assert find(statuses=[]) == []
