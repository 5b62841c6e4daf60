"""One timer for all waits of a task: each ends when it should, and what was cancelled by others stays cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from egress_gateway.relay import deadline as module
from egress_gateway.relay.deadline import Deadline
from support.waiting import until


async def test_a_wait_that_takes_too_long_is_over() -> None:
    deadline = Deadline()
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadline.within(0.05):
        await asyncio.sleep(5)
    assert 0.04 < time.monotonic() - started < 4
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with deadline.within(60):
        await asyncio.sleep(0.001)


async def test_a_shorter_wait_after_a_longer_one_does_not_wait_for_the_timer_of_that() -> None:
    deadline = Deadline()
    with deadline.within(60):
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError), deadline.within(0.02):
        await asyncio.sleep(5)


async def test_nothing_is_over_outside_of_a_wait() -> None:
    deadline = Deadline()
    with deadline.within(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.03)


@pytest.mark.usefixtures("steady")
async def test_what_moves_begins_the_time_anew() -> None:
    deadline = Deadline()
    with deadline.within(0.4):
        for _ in range(4):
            await asyncio.sleep(0.15)
            deadline.touch()


async def test_what_has_moved_once_does_not_move_for_ever() -> None:
    async def move_once() -> None:
        deadline = Deadline()
        with deadline.within(0.05):
            deadline.touch()
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await move_once()


async def test_who_stops_it_takes_as_long_as_it_takes() -> None:
    deadline = Deadline()
    with deadline.within(0.01):
        deadline.stop()
        deadline.touch()
        await asyncio.sleep(0.03)


async def test_what_has_run_out_stays_so() -> None:
    async def touch_too_late() -> None:
        deadline = Deadline()
        with deadline.within(0.01):
            try:
                await asyncio.sleep(5)
            finally:
                deadline.touch()

    with pytest.raises(TimeoutError):
        await touch_too_late()


async def test_a_task_that_others_cancel_is_cancelled() -> None:
    async def wait(seconds: float) -> None:
        with Deadline().within(seconds):
            await asyncio.sleep(5)

    task = asyncio.create_task(wait(5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_is_what_is_raised() -> None:
    with pytest.raises(ValueError, match="of the block"), Deadline().within(5):
        raise ValueError("of the block")


async def test_looks_about_once_a_second_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY", 0.02)
    looked: list[float] = []
    deadline = Deadline()
    with deadline.within(60, lambda: looked.append(time.monotonic())):
        await until(lambda: len(looked) >= 2, "it has looked twice")
    seen = len(looked)
    await asyncio.sleep(0.05)
    assert len(looked) == seen, "not when nobody waits"


async def test_many_waits_set_few_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    deadline, made = Deadline(), []
    real = loop.call_later
    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", lambda *args, **more: made.append(args) or real(*args, **more))
        for _ in range(100):
            with deadline.within(300):
                pass
            with deadline.within(300, lambda: None):
                pass
    assert len(made) == 2
    deadline.close()


async def test_nothing_is_left_once_it_is_closed() -> None:
    loop: Any = asyncio.get_running_loop()
    before = len(loop._scheduled)
    deadline = Deadline()
    with deadline.within(300):
        pass
    deadline.close()
    assert all(timer.cancelled() for timer in loop._scheduled[before:])


def test_only_a_task_can_be_waited_for() -> None:
    async def make() -> Deadline:
        return Deadline()

    deadline = asyncio.run(make())
    with pytest.raises(RuntimeError):
        deadline.__enter__()
