"""Who may be idle is asked at its time, not before and not much later, and nobody who has gone is asked at all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from egress_gateway.relay.idle_clock import GRAIN, IdleClock
from support.hand_time import HandTime
from support.waiting import until

ON_EVERY_LOOP = True


class Asked:
    def __init__(self) -> None:
        self.at: list[float] = []

    def look_at_the_clock(self, now: float) -> None:
        self.at.append(now)


async def test_everybody_is_asked_once_and_not_before_its_time() -> None:
    clock, now = IdleClock(asyncio.get_running_loop()), asyncio.get_running_loop().time()
    waiting = {after: Asked() for after in (0.3, 0.0, 0.15)}
    for after, asked in waiting.items():
        clock.add(asked, now + after)
    await until(lambda: all(asked.at for asked in waiting.values()), "all are asked")
    for after, asked in waiting.items():
        (at,) = asked.at
        assert now + after <= at
    assert len(clock) == 0


def test_nobody_is_asked_much_later() -> None:
    time: Any = HandTime()
    clock, now = IdleClock(time), time.time()
    waiting = {after: Asked() for after in (300.0, 0.0, 0.15)}
    for after, asked in waiting.items():
        clock.add(asked, now + after)
    for after in sorted(waiting):
        time.passes(now + after - time.time())
        assert not any(asked.at for later, asked in waiting.items() if later > after)
        time.passes(GRAIN)
        (at,) = waiting[after].at
        assert now + after <= at <= now + after + GRAIN


async def test_who_has_gone_is_not_asked() -> None:
    clock, now = IdleClock(asyncio.get_running_loop()), asyncio.get_running_loop().time()
    gone, there, alone = Asked(), Asked(), Asked()
    slot = clock.add(gone, now + 0.1)
    clock.add(there, now + 0.1)
    clock.discard(gone, slot)
    clock.discard(alone, clock.add(alone, now + 50))
    assert len(clock) == 1
    await until(lambda: there.at, "the other is asked")
    assert (gone.at, alone.at) == ([], [])


async def test_who_has_moved_asks_to_be_asked_later() -> None:
    clock, now = IdleClock(asyncio.get_running_loop()), asyncio.get_running_loop().time()

    class Busy(Asked):
        def look_at_the_clock(self, now: float) -> None:
            super().look_at_the_clock(now)
            if len(self.at) < 3:
                clock.add(self, now + 0.01)

    clock.add(busy := Busy(), now)
    await until(lambda: len(busy.at) == 3, "it is asked again")
    assert len(clock) == 0


async def test_who_raises_does_not_keep_others_from_being_asked(caplog: pytest.LogCaptureFixture) -> None:
    clock, now = IdleClock(asyncio.get_running_loop()), asyncio.get_running_loop().time()

    class Raising(Asked):
        def look_at_the_clock(self, now: float) -> None:
            raise RuntimeError("of ours")

    for _ in range(2):
        clock.add(Raising(), now + 0.01)
    clock.add(asked := Asked(), now + 0.01)
    await until(lambda: asked.at, "it is asked")
    await until(lambda: len(caplog.records) == 2, "both are logged")
