"""A key is in one worker's hands at a time, and no nudge is forgotten."""

import asyncio
import threading

from tramontane.base.nudges import NudgeQueue


async def test_nudges_of_one_key_fall_together() -> None:
    queue: NudgeQueue[str] = NudgeQueue(asyncio.get_running_loop().time)
    queue.nudge("a")
    queue.nudge("a")
    queue.nudge("b")
    assert [await queue.take(), await queue.take()] == ["a", "b"]


async def test_a_nudge_during_the_work_brings_the_key_back() -> None:
    queue: NudgeQueue[str] = NudgeQueue(asyncio.get_running_loop().time)
    queue.nudge("a")
    key = await queue.take()
    queue.nudge("a")
    queue.nudge("b")
    assert await queue.take() == "b", "a is still in a worker's hands"
    queue.done(key)
    assert await queue.take() == "a"


async def test_a_nudge_from_another_thread_wakes_a_waiting_worker() -> None:
    queue: NudgeQueue[str] = NudgeQueue(asyncio.get_running_loop().time)
    taker = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    thread = threading.Thread(target=queue.nudge, args=("a",))
    thread.start()
    assert await asyncio.wait_for(taker, 5) == "a"
    thread.join()


async def test_the_earlier_of_two_times_wins_and_fires_once() -> None:
    now = 100.0
    queue: NudgeQueue[str] = NudgeQueue(lambda: now)
    queue.nudge_in("a", 50)
    queue.nudge_in("a", 10)
    queue.nudge_in("b", 20)
    now = 115.0
    assert await queue.take() == "a"
    queue.done("a")
    now = 200.0
    assert await queue.take() == "b"
    queue.done("b")
    queue.nudge("c")
    assert await queue.take() == "c", "the later wish for a was dropped"


async def test_what_hurries_goes_before_a_look_at_everything() -> None:
    queue = NudgeQueue[str](asyncio.get_running_loop().time)
    for key in ("a", "b", "c"):
        queue.nudge_when_idle(key)
    queue.nudge("waking")
    assert await queue.take() == "waking"
    assert await queue.take() == "a"
    taking = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    assert not taking.done(), "two looks at everything would take two workers from who hurries"
    queue.nudge("c")
    assert await taking == "c"
    queue.done("a")
    assert await queue.take() == "b"


async def test_a_key_in_hand_is_not_looked_at_twice_at_once() -> None:
    queue = NudgeQueue[str](asyncio.get_running_loop().time)
    queue.nudge("a")
    assert await queue.take() == "a"
    queue.nudge_when_idle("a")
    queue.nudge("b")
    assert await queue.take() == "b"
    taking = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    assert not taking.done()
    taking.cancel()
