"""Long work beside a loop: what it changes of the interpreter is put back, and nobody waits long for it."""

import asyncio
import gc
import itertools
import sys
import time
import weakref

import pytest

from egress_gateway.config.beside import (
    PIECE,
    REST,
    TURN,
    Pauses,
    beside,
    let_go,
    look_at_new_objects,
    short_turns,
    with_pauses,
)
from egress_gateway.config.left_out import leave_out


@pytest.fixture(autouse=True)
def as_it_was():
    before = sys.getswitchinterval(), gc.isenabled()
    yield
    assert (sys.getswitchinterval(), gc.isenabled()) == before


def seen():
    return pytest.approx(sys.getswitchinterval()) == TURN, gc.isenabled()


async def test_the_work_has_short_turns_and_what_it_returns_is_returned():
    assert await beside(seen) == (True, False)


async def test_what_the_work_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        await beside(divmod, 1, 0)


async def test_of_two_at_it_the_last_puts_back_what_was():
    with short_turns():
        assert await beside(seen) == (True, False)
        assert seen() == (True, False)


def test_short_turns_are_not_made_longer_and_collections_that_were_off_stay_off():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(TURN / 3)
    gc.disable()
    try:
        with short_turns():
            assert sys.getswitchinterval() < TURN / 2
        assert not gc.isenabled()
    finally:
        sys.setswitchinterval(interval)
        gc.enable()


async def test_the_loop_has_its_turn_while_the_work_goes_on():
    def work():
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass

    most = 0
    for _ in range(3):  # the best of three: the loop's thread may be kept waiting by others
        working = asyncio.create_task(beside(work))
        turns = 0
        while not working.done():
            await asyncio.sleep(0.001)
            turns += 1
        if (most := max(most, turns)) > 30:
            return
    assert most > 30


def test_new_objects_grow_old_when_there_are_many():
    with short_turns():
        look_at_new_objects()
        made = [[] for _ in range(20_000)]
        assert gc.get_count()[0] > 15_000
        look_at_new_objects()
        assert gc.get_count()[0] < 5_000
    assert len(made) == 20_000


def test_those_that_grow_old_do_not_bring_on_a_collection_of_all_there_are():
    generations = []

    def note(phase, info):
        if phase == "start":
            generations.append(info["generation"])

    gc.callbacks.append(note)
    try:
        with short_turns():
            made = []
            for _ in range(40):
                made += [[] for _ in range(3_000)]
                look_at_new_objects()
    finally:
        gc.callbacks.remove(note)
    assert len(generations) >= 40
    assert set(generations) == {0}


class Made:
    """Of parts, as a rule is."""

    __slots__ = ("__weakref__", "parts")

    def __init__(self, *parts):
        self.parts = parts


def test_no_collection_looks_at_what_is_left_out_and_at_what_it_is_made_of():
    inner, other = Made("x", []), [[]]
    outer = Made({"inner": inner}, other)
    calls = []
    leave_out([outer, inner], {Made, tuple, dict}, lambda: calls.append(1))
    left = (outer, outer.parts, outer.parts[0], inner, inner.parts)
    assert [gc.is_tracked(one) for one in left] == [False] * 5
    assert gc.is_tracked(other)
    assert gc.is_tracked(Made)
    assert len(calls) == 2


def test_what_is_left_out_is_gone_when_nobody_holds_it():
    made = Made(Made("x"))
    gone = weakref.ref(made.parts[0])
    leave_out([made], {Made, tuple})
    del made
    assert gone() is None


def test_work_rests_after_every_piece(monkeypatch):
    rests = [(time.perf_counter(), REST)]
    monkeypatch.setattr(time, "sleep", lambda seconds: rests.append((time.perf_counter(), seconds)))
    pauses = Pauses()
    until = time.perf_counter() + 15
    while len(rests) < 20 and time.perf_counter() < until:
        pauses()
    assert len(rests) == 20
    assert min(after - before for (before, _), (after, _) in itertools.pairwise(rests)) >= PIECE
    assert {seconds for _, seconds in rests} == {REST}


def test_items_with_rests_in_between_are_the_same_items():
    assert list(with_pauses(range(5))) == [0, 1, 2, 3, 4]


def test_what_is_let_go_is_gone_piece_by_piece():
    class Part:
        def __del__(self):
            gone.append(len(parts))

    gone = []
    parts: list[object] = [Part() for _ in range(5)]
    let_go(parts)
    assert gone == [4, 3, 2, 1, 0]
