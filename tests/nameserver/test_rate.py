"""How often a client may ask, and how often something is said."""

from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.nameserver.rate import Buckets, Seldom


def test_a_client_may_ask_at_its_pace_and_a_burst_before() -> None:
    buckets = Buckets()
    granted = [buckets.take("a", 100.0, rate=10, burst=20) for _ in range(25)]
    assert granted == [True] * 20 + [False] * 5
    assert [buckets.take("a", 100.25, rate=10, burst=20) for _ in range(3)] == [True, True, False]
    assert sum(buckets.take("a", 200.0, rate=10, burst=20) for _ in range(30)) == 20, "no more than the burst is saved"


def test_one_client_costs_the_others_nothing() -> None:
    buckets = Buckets()
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


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=200))
def test_over_any_time_no_more_than_the_burst_and_the_pace(times: list[float]) -> None:
    buckets = Buckets()
    granted = [now for now in sorted(times) if buckets.take("a", now, rate=2, burst=5)]
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            assert last - first + 1 <= 5 + 2 * (granted[last] - granted[first]) + 1e-6


def test_a_clock_that_stands_still_gives_nothing_back() -> None:
    buckets = Buckets()
    assert sum(buckets.take("a", 1.0, rate=1000, burst=3) for _ in range(10)) == 3


def test_something_is_said_once_a_second_a_word() -> None:
    seldom = Seldom()
    assert [seldom.may_say("x", 1.0), seldom.may_say("x", 1.9), seldom.may_say("y", 1.9)] == [True, False, True]
    assert [seldom.may_say("x", 2.0), seldom.may_say("y", 2.0)] == [True, False]
