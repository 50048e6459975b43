"""Carries out batches at idle priority, and goes on where it was whatever was killed.

What is done stands in the files of results and nowhere else: a request is sent only if it has no
line there, its line is on disk before it counts, and one worker at a time has a batch. So a request
is sent again after its answer was lost, which takes a kill between the two, and never otherwise.

Requests go through the gateway as everybody's do, in the name of the key that asked for the batch:
waking, routing, accounting and revoking are the same. How many at once, ``plan.batches`` says.
The API nudges after each change; a look by the clock finds what was lost.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from tramontane.base.clock import Clock
from tramontane.base.nudges import NudgeQueue
from tramontane.domain.batch import BATCH_OVER, Batch, BatchError, BatchStatus
from tramontane.domain.files import BATCH_OUTPUT, ProjectFile
from tramontane.plan.batches import (
    CANCELLED,
    EXPIRED,
    LINE_BYTES_MAX,
    Line,
    ModelLoad,
    check_lines,
    find_custom_id,
    make_answered,
    make_unanswered,
    plan_end,
    plan_pause,
    plan_room,
    read_line,
    read_number,
)
from tramontane.store.contents import FileContents
from tramontane.store.results import Results, open_results

log = logging.getLogger(__name__)

WORKERS = 16
"""Batches at a time; the others wait, oldest first."""
PERIOD_S = 30.0
LOOK_S = 1.0
"""As often as the gateway reports."""
RETRY_S = 5.0
CHUNK_BYTES = 1024**2

UNREACHABLE = BatchError(
    code="unreachable", message="The model gave no answer, however often it was asked."
)
KEY_REVOKED = BatchError(
    code="key_revoked", message="The API key that asked for this batch was revoked."
)
NO_INPUT = BatchError(code="file_missing", message="A file of requests is not there any more.")


class BatchMemory(Protocol):
    """What this reconciler needs of the store."""

    def list_open_batches(self) -> list[str]:
        """Return the ids of all batches that are not over, oldest first."""
        ...

    def find_batch(self, batch_id: str) -> Batch | None:
        """Return one batch, or None if it is gone."""
        ...

    def advance_batch(
        self,
        batch: Batch,
        status: BatchStatus,
        now: float,
        *,
        errors: Sequence[BatchError] = (),
        counts: Mapping[str, int] | None = None,
    ) -> bool:
        """Write the next status; False if the batch is gone or somebody else changed its status."""
        ...

    def count_results(self, batch_id: str, succeeded: int, failed: int) -> None:
        """Write how many results there are; counts that come late change nothing back."""
        ...

    def add_file(self, file: ProjectFile) -> bool:
        """Note that a file's content is in its place; a file that is there is left as it is."""
        ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back for one request."""

    status: int
    body: bytes
    retry_after_s: float | None = None


class Carrier(Protocol):
    """The way to the models."""

    async def send(self, path: str, body: bytes, key: str) -> Answer | None:
        """Return what the gateway answers, or None if nothing whole came back."""
        ...


Lend = Callable[[str], str | None]
"""Takes a key's id and returns a text that is good for one request; None once it is revoked."""
Look = Callable[[str, str], Awaitable[ModelLoad | None]]
"""Takes project and model, and returns how busy the model is; None if nobody knows it."""
Wait = Callable[[asyncio.Event, float], Awaitable[None]]
"""Returns when the event is set or so many seconds are over."""


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Return when the event is set or so many seconds are over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


@dataclass(kw_only=True, eq=False)
class _Run:
    """One batch while its requests are sent."""

    batch: Batch
    results: Results
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing more is to be sent."""
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """Some request has ended, of this batch or another."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(kw_only=True)
class BatchReconciler:
    """Every batch of one platform."""

    store: BatchMemory
    contents: FileContents
    carrier: Carrier
    lend: Lend
    look: Look
    queue: NudgeQueue[str]
    clock: Clock
    wait: Wait = wait_for

    _ours: Counter[tuple[str, str]] = field(init=False, default_factory=Counter[tuple[str, str]])
    """Requests in progress, by project and model."""
    _ours_reported: Counter[tuple[str, str]] = field(
        init=False, default_factory=Counter[tuple[str, str]]
    )
    """The same when the gateway reported last: what it counted holds these."""
    _runs: set[_Run] = field(init=False, default_factory=set[_Run])

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
            while True:
                for batch_id in await asyncio.to_thread(self.store.list_open_batches):
                    self.queue.nudge(batch_id)
                await asyncio.sleep(PERIOD_S)

    def note_report(self) -> None:
        """Note that the gateway reports how busy models are, just now."""
        self._ours_reported = self._ours.copy()

    async def reconcile(self, batch_id: str) -> None:
        """Take one batch as far as it goes."""
        while batch := await asyncio.to_thread(self.store.find_batch, batch_id):
            match batch.status:
                case BatchStatus.VALIDATING:
                    await asyncio.to_thread(self._validate, batch)
                case BatchStatus.IN_PROGRESS:
                    await self._carry_out(batch)
                case BatchStatus.FINALIZING | BatchStatus.CANCELLING:
                    await asyncio.to_thread(self._finish, batch)
                case _:
                    assert batch.status in BATCH_OVER
                    return

    async def _work(self) -> None:
        while True:
            batch_id = await self.queue.take()
            try:
                await self.reconcile(batch_id)
            except Exception:
                log.exception("batch %s failed unexpectedly; it is tried again", batch_id)
                self.queue.nudge_in(batch_id, RETRY_S)
            finally:
                self.queue.done(batch_id)

    def _validate(self, batch: Batch) -> None:
        try:
            check = check_lines(batch, self._read_lines(batch))
            total, errors = check.total, check.errors
        except FileNotFoundError:
            total, errors = 0, (NO_INPUT,)
        status = BatchStatus.FAILED if errors else BatchStatus.IN_PROGRESS
        counts = {} if errors else {"total": total}
        self.store.advance_batch(batch, status, self.clock.now(), errors=errors, counts=counts)

    async def _carry_out(self, batch: Batch) -> None:
        results = await asyncio.to_thread(self._open_results, batch)
        run = _Run(batch=batch, results=results)
        self._runs.add(run)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch(run))
                await self._send_all(run)
                watch.cancel()
        finally:
            self._runs.discard(run)
            await asyncio.to_thread(results.close)
        missing = len(results.done) < batch.total
        # Not in progress any more, if that is why it stopped: then this changes nothing.
        await asyncio.to_thread(
            self.store.advance_batch,
            batch,
            BatchStatus.FINALIZING,
            self.clock.now(),
            errors=(EXPIRED,) if missing else (),
            counts={"succeeded": results.succeeded, "failed": results.failed},
        )

    async def _watch(self, run: _Run) -> None:
        """Stop the run when its time is over or somebody else has changed its status."""
        while self.clock.now() < run.batch.expires_at and not run.stop.is_set():
            found = await asyncio.to_thread(self.store.find_batch, run.batch.id)
            if found is None or found.status is not BatchStatus.IN_PROGRESS:
                break
            await self.wait(run.stop, LOOK_S)
        run.stop.set()
        run.freed.set()

    async def _send_all(self, run: _Run) -> None:
        """Send what has no result yet, until all have one or the run is stopped."""
        lines = self._find_missing(run)
        try:
            async with asyncio.TaskGroup() as group:
                while (line := await asyncio.to_thread(next, lines, None)) is not None:
                    if not await self._wait_for_room(run, line.model):
                        break
                    self._ours[run.batch.project, line.model] += 1
                    group.create_task(self._carry(run, line))
        except* FileNotFoundError:
            await self._give_up(run, NO_INPUT)

    async def _wait_for_room(self, run: _Run, model: str) -> bool:
        """Return True when the model may get one request more, False if the run was stopped."""
        key = (run.batch.project, model)
        while not run.stop.is_set():
            run.freed.clear()
            load = await self.look(*key)
            if self._ours[key] < plan_room(load, self._ours_reported[key]):
                return True
            await self.wait(run.freed, LOOK_S)
        return False

    async def _carry(self, run: _Run, line: Line) -> None:
        """Send one request until there is a result to keep, or the run is stopped."""
        batch = run.batch
        try:
            attempts = 0
            while not run.stop.is_set():
                key = await asyncio.to_thread(self.lend, batch.key_id)
                if key is None:
                    await self._give_up(run, KEY_REVOKED)
                    return
                attempts += 1
                answer = await self.carrier.send(batch.endpoint, line.body, key)
                status = None if answer is None else answer.status
                retry_after_s = None if answer is None else answer.retry_after_s
                pause_s = plan_pause(status, attempts, retry_after_s)
                if pause_s is None:
                    await self._keep(run, line, answer)
                    return
                await self.wait(run.stop, pause_s)
        finally:
            self._ours[batch.project, line.model] -= 1
            for each in self._runs:
                each.freed.set()

    async def _keep(self, run: _Run, line: Line, answer: Answer | None) -> None:
        if answer is None:
            text = make_unanswered(run.batch, line.number, line.custom_id, UNREACHABLE)
        else:
            text = make_answered(run.batch, line, answer.status, answer.body)
        succeeded = answer is not None and answer.status < 400
        async with run.writing:
            await asyncio.to_thread(self._write, run, line.number, text, succeeded)

    def _write(self, run: _Run, number: int, text: bytes, succeeded: bool) -> None:
        run.results.add(number, text, succeeded=succeeded)
        self.store.count_results(run.batch.id, run.results.succeeded, run.results.failed)

    async def _give_up(self, run: _Run, error: BatchError) -> None:
        """Cancel a batch that cannot go on."""
        run.stop.set()
        run.freed.set()
        await asyncio.to_thread(
            self.store.advance_batch,
            run.batch,
            BatchStatus.CANCELLING,
            self.clock.now(),
            errors=(error,),
        )

    def _finish(self, batch: Batch) -> None:
        error = CANCELLED if batch.status is BatchStatus.CANCELLING else EXPIRED
        results = self._open_results(batch)
        try:
            with suppress(FileNotFoundError):
                results.add_failures(
                    (number, make_unanswered(batch, number, find_custom_id(text), error))
                    for number, text in self._read_lines(batch)
                    # A batch that was cancelled before it was checked may hold anything.
                    if batch.total and number not in results.done
                )
        finally:
            results.close()
        now = self.clock.now()
        for file_id, kind in ((batch.output_file, "output"), (batch.error_file, "error")):
            self._keep_file(batch, file_id, f"{batch.id}_{kind}.jsonl", now)
        counts = {"succeeded": results.succeeded, "failed": results.failed}
        self.store.advance_batch(batch, plan_end(batch), now, counts=counts)

    def _keep_file(self, batch: Batch, file_id: str, name: str, now: float) -> None:
        """Make a file of the project from what was written; an empty one goes."""
        size_bytes, lines, digest = 0, 0, hashlib.sha256()
        with self.contents.path(file_id).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                size_bytes += len(chunk)
                lines += chunk.count(b"\n")
                digest.update(chunk)
        if not size_bytes:
            self.contents.remove(file_id)
            return
        self.store.add_file(
            ProjectFile(
                id=file_id,
                project=batch.project,
                name=name,
                purpose=BATCH_OUTPUT,
                size_bytes=size_bytes,
                lines=lines,
                digest=f"sha256:{digest.hexdigest()}",
                created_at=now,
                expires_at=now + batch.results_kept_s,
            )
        )

    def _open_results(self, batch: Batch) -> Results:
        return open_results(self.contents, batch.output_file, batch.error_file, read_number)

    def _find_missing(self, run: _Run) -> Iterator[Line]:
        done = frozenset(run.results.done)
        for number, text in self._read_lines(run.batch):
            if number not in done:
                line = read_line(run.batch, number, text)
                assert isinstance(line, Line), f"line {number} of {run.batch.id} was good before"
                yield line

    def _read_lines(self, batch: Batch) -> Iterator[tuple[int, bytes]]:
        """Yield every line that is not blank with its number; of one too long, its beginning."""
        number = 0
        for file_id in batch.input_files:
            with self.contents.path(file_id).open("rb") as file:
                while text := file.readline(LINE_BYTES_MAX + 1):
                    if text.strip():
                        yield number, text
                    while text and not text.endswith(b"\n"):
                        text = file.readline(LINE_BYTES_MAX)
                    number += 1
