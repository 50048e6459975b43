"""Batches against a model that fails in every way, a platform that dies, and users who change
their minds: in the end every request has exactly one result."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tramontane.base.nudges import NudgeQueue
from tramontane.domain.batch import Batch, BatchStatus
from tramontane.domain.files import ProjectFile
from tramontane.plan.batches import ATTEMPTS_MAX, ModelLoad
from tramontane.reconcile.batches import Answer, BatchReconciler
from tramontane.store.contents import FileContents
from tramontane.store.store import Store, open_store
from tramontane.testing.batches import make_batch, make_line
from tramontane.testing.clocks import FakeClock

GOOD = Answer(status=200, body=b'{"usage": {}}')
BUSY = ModelLoad(instances=1, concurrency=20.0, in_progress=9)
FREE = ModelLoad(instances=1, concurrency=20.0, in_progress=0)


class Killed(BaseException):
    """The process ended here."""


class World:
    """One batch of requests; a test says how the model behaves."""

    def __init__(self, store: Store, directory: Path, clock: FakeClock) -> None:
        self.store, self.directory, self.clock = store, directory, clock
        self.contents = FileContents(directory)
        self.sent: list[str] = []
        self.in_progress = 0
        self.most_in_progress = 0
        self.load: ModelLoad | None = FREE
        self.revoked = False
        self.answer: Callable[[str, int], Answer | None] = lambda custom_id, attempt: GOOD
        self.on_wait: Callable[[], None] = lambda: None

    def add(self, *lines: bytes, **values: object) -> Batch:
        now = self.clock.now()
        file = ProjectFile(
            id="file_1",
            project="shop",
            name="in.jsonl",
            purpose="batch",
            size_bytes=1,
            lines=len(lines),
            digest="",
            created_at=now,
        )
        self.directory.mkdir(exist_ok=True)
        self.contents.path("file_1").write_bytes(b"".join(lines))
        assert self.store.add_file(file)
        batch = make_batch(created_at=now, expires_at=now + 100.0, **values)
        self.store.add_batch(batch)
        return batch

    def make_reconciler(self) -> BatchReconciler:
        """Return a control plane that has just started."""
        return BatchReconciler(
            store=self.store,
            contents=self.contents,
            carrier=self,
            lend=lambda key_id: None if self.revoked else f"lent {key_id}",
            look=self.look,
            queue=NudgeQueue(self.clock.monotonic),
            clock=self.clock,
            wait=self.wait,
        )

    async def send(self, path: str, body: bytes, key: str) -> Answer | None:
        assert (path, key) == ("/v1/chat/completions", "lent tok_1")
        custom_id = json.loads(body)["messages"]
        self.sent.append(custom_id)
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            await asyncio.sleep(0)
            return self.answer(custom_id, self.sent.count(custom_id))
        finally:
            self.in_progress -= 1

    async def look(self, project: str, model: str) -> ModelLoad | None:
        assert (project, model) == ("shop", "tiny")
        return self.load

    async def wait(self, event: asyncio.Event, seconds: float) -> None:
        self.on_wait()
        await asyncio.sleep(0)

    def batch(self) -> Batch:
        return self.store.read_batch("shop", "batch_1")

    def results(self, file_id: str) -> list[dict]:
        path = self.contents.path(file_id)
        return [json.loads(line) for line in path.read_bytes().splitlines()]

    def outcomes(self) -> tuple[Counter[str], Counter[str]]:
        """Return how often each request stands in each file, once the batch is over."""
        batch = self.batch()
        found = []
        for file_id, count in (("file_2", batch.succeeded), ("file_3", batch.failed)):
            lines = self.results(file_id) if count else []
            assert self.contents.path(file_id).exists() == bool(count)
            assert len(lines) == count
            if count:
                file = self.store.read_file("shop", file_id, now=self.clock.now())
                assert (file.lines, file.purpose) == (count, "batch_output")
            found.append(Counter(each["custom_id"] for each in lines))
        return found[0], found[1]


def request(number: int) -> bytes:
    return make_line(number, body={"model": "tiny", "messages": f"r{number}"})


def names(*numbers: int) -> Counter[str]:
    return Counter(f"r{number}" for number in numbers)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    store = open_store(tmp_path / "tramontane.db")
    yield World(store, tmp_path / "files", FakeClock())
    store.close()


async def test_good_and_bad_answers_end_in_their_files(world: World) -> None:
    world.add(*map(request, range(20)))
    bad = Answer(status=400, body=b'{"error": "no"}')
    world.answer = lambda name, _: bad if name in {"r3", "r7"} else GOOD
    await world.make_reconciler().reconcile("batch_1")
    batch = world.batch()
    assert (batch.status, batch.total, batch.succeeded, batch.failed) == ("completed", 20, 18, 2)
    assert world.outcomes()[1] == names(3, 7)
    assert Counter(world.sent) == names(*range(20)), "what is wrong is not tried again"
    assert world.results("file_3")[0]["response"]["body"] == {"error": "no"}
    assert 1 <= world.most_in_progress <= 2
    assert list(batch.moments) == ["in_progress", "finalizing", "completed"]


async def test_what_cannot_be_read_is_not_begun(world: World) -> None:
    world.add(request(0), b"no json\n", b"\n", request(1), request(1))
    await world.make_reconciler().reconcile("batch_1")
    batch = world.batch()
    assert batch.status is BatchStatus.FAILED
    assert [(each.line, each.code) for each in batch.errors] == [
        (2, "invalid_json_line"),
        (5, "duplicate_custom_id"),
    ]
    assert world.sent == []


async def test_what_passes_is_tried_again_and_only_then_fails(world: World) -> None:
    world.add(*map(request, range(3)))
    away = Answer(status=503, body=b'{"error": "away"}')
    bad_days = {"r0": 3, "r1": 10**6, "r2": 0}
    world.answer = lambda name, attempt: (
        GOOD if attempt > bad_days[name] else (None if attempt == 1 else away)
    )
    await world.make_reconciler().reconcile("batch_1")
    assert world.outcomes() == (names(0, 2), names(1))
    assert Counter(world.sent) == Counter({"r0": 4, "r1": ATTEMPTS_MAX, "r2": 1})
    assert world.results("file_3")[0]["response"]["status_code"] == 503


async def test_a_model_that_never_answers_is_said_to(world: World) -> None:
    world.add(request(0))
    world.answer = lambda *_: None
    await world.make_reconciler().reconcile("batch_1")
    assert world.results("file_3")[0]["error"]["code"] == "unreachable"


@pytest.mark.parametrize("kill_at", range(1, 9))
async def test_a_killed_control_plane_goes_on_where_it_was(world: World, kill_at: int) -> None:
    world.add(*map(request, range(6)))

    def die(_name: str, _attempt: int) -> Answer:
        if len(world.sent) == kill_at:
            raise Killed
        return GOOD

    world.answer = die
    try:
        await world.make_reconciler().reconcile("batch_1")
    except* Killed:
        # It died while it wrote a line that nobody has counted.
        with world.contents.path("file_2").open("ab") as file:
            file.write(b'{"id":"batch_req_1_')
    world.answer = lambda *_: GOOD
    await world.make_reconciler().reconcile("batch_1")
    assert world.batch().status is BatchStatus.COMPLETED
    assert world.outcomes() == (names(*range(6)), Counter())
    again = Counter(world.sent) - names(*range(6))
    assert again.total() <= 2, "at most what was in progress is sent again"


@pytest.mark.parametrize("step", ["add_file", "advance_batch"])
async def test_killed_while_results_are_put_together(
    world: World, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(*map(request, range(4)))
    done = BatchStatus.FINALIZING
    first = world.make_reconciler()

    def die(*arguments: object, **_: object) -> None:
        if world.batch().status is done:
            raise Killed
        kept(*arguments, **_)

    kept = getattr(world.store, step)
    monkeypatch.setattr(world.store, step, die)
    with pytest.raises(Killed):
        await first.reconcile("batch_1")
    monkeypatch.undo()
    await world.make_reconciler().reconcile("batch_1")
    assert world.outcomes() == (names(0, 1, 2, 3), Counter())
    assert Counter(world.sent) == names(0, 1, 2, 3)


async def test_a_cancelled_batch_keeps_what_it_has(world: World) -> None:
    world.add(*map(request, range(10)))

    def cancel(_name: str, _attempt: int) -> Answer:
        if len(world.sent) == 3:
            world.store.cancel_batch("shop", "batch_1", now=world.clock.now())
            world.load = BUSY
        return GOOD

    world.answer = cancel
    await world.make_reconciler().reconcile("batch_1")
    assert world.batch().status is BatchStatus.CANCELLED
    succeeded, failed = world.outcomes()
    assert succeeded + failed == names(*range(10))
    assert succeeded == Counter(world.sent)
    assert {each["error"]["code"] for each in world.results("file_3")} == {"batch_cancelled"}


async def test_cancelled_before_it_was_looked_at_nothing_is_sent(world: World) -> None:
    world.add(b"whatever\n")
    world.store.cancel_batch("shop", "batch_1", now=world.clock.now())
    await world.make_reconciler().reconcile("batch_1")
    assert world.batch().status is BatchStatus.CANCELLED
    assert world.outcomes() == (Counter(), Counter())


@pytest.mark.parametrize("killed", [False, True])
async def test_what_was_not_sent_in_time_expires(
    world: World, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add(*map(request, range(5)))

    def grow_busy(_name: str, _attempt: int) -> Answer:
        world.load = BUSY
        return GOOD

    world.answer = grow_busy
    world.on_wait = lambda: world.clock.advance(10.0)
    if killed:
        kept = world.store.add_file

        def die(file: ProjectFile) -> None:
            raise Killed

        monkeypatch.setattr(world.store, "add_file", die)
        with pytest.raises(Killed):
            await world.make_reconciler().reconcile("batch_1")
        monkeypatch.setattr(world.store, "add_file", kept)
    await world.make_reconciler().reconcile("batch_1")
    assert world.batch().status is BatchStatus.EXPIRED
    succeeded, failed = world.outcomes()
    assert succeeded + failed == names(*range(5))
    assert failed
    assert {each["error"]["code"] for each in world.results("file_3")} == {"batch_expired"}


async def test_a_busy_model_is_left_to_others(world: World) -> None:
    world.add(*map(request, range(3)))
    world.load = BUSY
    waits = 0

    def calm_down() -> None:
        nonlocal waits
        waits += 1
        if waits == 20:
            assert world.sent == []
            world.load = FREE

    world.on_wait = calm_down
    await world.make_reconciler().reconcile("batch_1")
    assert world.outcomes()[0] == names(0, 1, 2)
    assert waits >= 20


async def test_a_revoked_key_ends_its_batch(world: World) -> None:
    world.add(*map(request, range(6)))

    def revoke(_name: str, _attempt: int) -> Answer:
        world.revoked = len(world.sent) >= 2
        return GOOD

    world.answer = revoke
    await world.make_reconciler().reconcile("batch_1")
    batch = world.batch()
    assert (batch.status, [each.code for each in batch.errors]) == ("cancelled", ["key_revoked"])
    succeeded, failed = world.outcomes()
    assert succeeded + failed == names(*range(6))
    assert failed


async def test_requests_that_are_gone_end_their_batch(world: World) -> None:
    world.add(request(0))
    world.contents.remove("file_1")
    await world.make_reconciler().reconcile("batch_1")
    batch = world.batch()
    assert (batch.status, [each.code for each in batch.errors]) == ("failed", ["file_missing"])


async def test_a_batch_of_a_deleted_project_is_left_alone(world: World) -> None:
    world.add(*map(request, range(3)))

    def delete(_name: str, _attempt: int) -> Answer:
        world.store.delete_project("shop")
        world.answer = lambda *_: GOOD
        return GOOD

    world.answer = delete
    await world.make_reconciler().reconcile("batch_1")
    assert world.store.find_batch("batch_1") is None
    assert world.store.list_known_files(["file_1", "file_2", "file_3"]) == set()
