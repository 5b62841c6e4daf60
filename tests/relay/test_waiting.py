"""What a task waits for and is resumed by in the very callback: as a future, without a turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from egress_gateway.relay.waiting import Waiting

ON_EVERY_LOOP = True


async def waiter(waiting: Waiting, seen: list[str]) -> None:
    seen.append("waits")
    await waiting
    seen.append("goes on")


async def begun(seen: list[str]) -> tuple[Waiting, asyncio.Task[None]]:
    waiting = Waiting(asyncio.get_running_loop())
    task = asyncio.create_task(waiter(waiting, seen))
    await asyncio.sleep(0)
    assert waiting.is_awaited
    return waiting, task


async def test_goes_on_within_the_callback_that_wakes_it() -> None:
    seen: list[str] = []
    waiting, task = await begun(seen)

    def callback() -> None:
        waiting.wake()
        seen.append("callback is over")

    asyncio.get_running_loop().call_soon(callback)
    await task
    assert seen == ["waits", "goes on", "callback is over"]
    assert not waiting.is_awaited


async def test_is_used_again_and_again() -> None:
    loop = asyncio.get_running_loop()
    waiting = Waiting(loop)
    for _ in range(3):
        loop.call_soon(waiting.wake)
        await waiting


async def test_wakes_nobody_where_nobody_waits_and_nobody_twice() -> None:
    seen: list[str] = []
    waiting, task = await begun(seen)
    waiting.wake_soon()
    waiting.wake_soon()
    await task
    waiting.wake()
    waiting.wake_soon()
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waiting.wake)
    await waiting  # what was said when nobody waited is not remembered
    assert seen == ["waits", "goes on"]


async def test_a_task_that_waits_can_be_cancelled_and_is_not_woken_as_well() -> None:
    seen: list[str] = []
    waiting, task = await begun(seen)
    task.cancel("enough")
    asyncio.get_running_loop().call_soon(waiting.wake)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["waits"]
    assert not waiting.is_awaited


async def test_a_timeout_ends_the_wait() -> None:
    waiting = Waiting(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await waiting
    assert not waiting.is_awaited


async def test_a_task_that_was_begun_eagerly_waits_as_well() -> None:
    loop = asyncio.get_running_loop()
    waiting, seen = Waiting(loop), list[str]()
    task = asyncio.Task(waiter(waiting, seen), loop=loop, eager_start=True)
    assert seen == ["waits"]
    loop.call_soon(waiting.wake)
    await task
    assert seen == ["waits", "goes on"]
