"""How often a client may ask: of one process, and of several that share their buckets."""

import mmap
import time
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egress_gateway.gate.quotas import SharedQuotas
from egress_gateway.gate.turns import Buckets, Turns
from support.children import fork, wait


def shared() -> Turns:
    return SharedQuotas(2).join(0).questions


KINDS = pytest.mark.parametrize("make", [Buckets, shared], ids=["own", "shared"])
Make = Callable[[], Turns]


@KINDS
def test_a_client_may_ask_at_its_pace_and_a_burst_before(make: Make) -> None:
    buckets = make()
    granted = [buckets.take("a", 100.0, rate=10, burst=20) for _ in range(25)]
    assert granted == [True] * 20 + [False] * 5
    assert [buckets.take("a", 100.25, rate=10, burst=20) for _ in range(3)] == [True, True, False]
    assert sum(buckets.take("a", 200.0, rate=10, burst=20) for _ in range(30)) == 20, "no more than the burst is saved"


@KINDS
def test_one_client_costs_the_others_nothing(make: Make) -> None:
    buckets = make()
    while buckets.take("a", 1.0, rate=1, burst=2):
        pass
    assert buckets.take("b", 1.0, rate=1, burst=2)


def test_so_many_clients_are_remembered_and_no_more() -> None:
    buckets = Buckets(clients=100)
    for number in range(10_000):
        buckets.take(str(number), 1.0, rate=1, burst=2)
    assert len(buckets) == 100


def test_the_busy_one_is_remembered_while_others_come_and_go() -> None:
    buckets = Buckets(clients=10)
    asked = [buckets.take("busy", 1.0, rate=1, burst=5)]
    for number in range(100):
        buckets.take(str(number), 1.0, rate=1, burst=5)
        asked.append(buckets.take("busy", 1.0, rate=1, burst=5))
    assert sum(asked) == 5


@KINDS
@settings(deadline=None)
@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=200))
def test_over_any_time_no_more_than_the_burst_and_the_pace(make: Make, times: list[float]) -> None:
    buckets = make()
    granted = [now for now in sorted(times) if buckets.take("a", now, rate=2, burst=5)]
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            assert last - first + 1 <= 5 + 2 * (granted[last] - granted[first]) + 1e-6


@KINDS
def test_a_clock_that_stands_still_gives_nothing_back(make: Make) -> None:
    buckets = make()
    assert sum(buckets.take("a", 1.0, rate=1000, burst=3) for _ in range(10)) == 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 2), st.sampled_from("ab")), max_size=150))
def test_whoever_serves_a_client_it_has_the_same_turns(asked: list[tuple[int, int, str]]) -> None:
    """Several processes that share grant what one that has the buckets to itself would grant."""
    quotas = SharedQuotas(3)
    several = [quotas.join(number).questions for number in range(3)]
    alone = Buckets()
    for eighths, which, client in sorted(asked):
        now = eighths / 8  # without rounding errors
        expected = alone.take(client, now, rate=2, burst=4)
        assert several[which].take(client, now, rate=2, burst=4) == expected


def test_processes_together_grant_what_one_client_may_have() -> None:
    """Children ask for one client as fast as they can.

    One that is held up between looking at the bucket and writing puts it back to where it was, which the others then
    have once more; it cannot be more than a burst. Each for itself would grant four bursts.
    """
    quotas = SharedQuotas(4)
    beginning = time.monotonic()

    def ask(number: int) -> None:
        turns = quotas.join(number).questions
        granted = sum(turns.take("192.0.2.1", time.monotonic(), rate=100, burst=1000) for _ in range(20_000))
        results[number] = granted

    results = memoryview(mmap.mmap(-1, 4096)).cast("Q")
    children = [fork(partial(ask, number)) for number in range(4)]
    for pid in children:
        assert wait(pid) == 0
    passed = time.monotonic() - beginning
    assert 1000 <= sum(results) <= 2.5 * (1000 + 100 * passed)


def test_many_clients_leave_room_for_each_other() -> None:
    turns = shared()
    for number in range(2000):
        assert turns.take(f"192.0.{number // 250}.{number % 250}", 1.0, rate=1, burst=2), number
