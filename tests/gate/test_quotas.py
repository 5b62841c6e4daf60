"""What one client has of the gateway, whichever process serves it, and what is left of a process that dies."""

import random
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egress_gateway.gate.quotas import Counts, OwnCounts, SharedQuotas
from support.children import child, fork, kill, wait
from support.waiting import eventually

CLIENT = "192.0.2.1"


def alone() -> Counts:
    return SharedQuotas(1).join(0).connections


@pytest.mark.parametrize("make", [OwnCounts, alone], ids=["own", "shared"])
def test_a_client_has_what_it_entered_and_did_not_leave(make: Callable[[], Counts]) -> None:
    counts = make()
    assert [counts.enter(CLIENT) for _ in range(3)] == [1, 2, 3]
    assert counts.enter("2001:db8::1") == 1
    counts.leave(CLIENT)
    assert counts.enter(CLIENT) == 3
    for _ in range(3):
        counts.leave(CLIENT)
    counts.leave("2001:db8::1")
    assert len(counts) == 0
    assert counts.enter(CLIENT) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcde"), st.booleans()), max_size=80))
def test_each_process_counts_what_all_of_them_have(steps: list[tuple[int, str, bool]]) -> None:
    quotas = SharedQuotas(3)
    several = [quotas.join(number).connections for number in range(3)]
    model: list[Counter[str]] = [Counter() for _ in range(3)]
    for which, client, enters in steps:
        if enters:
            model[which][client] += 1
            assert several[which].enter(client) == sum(counts[client] for counts in model)
        elif model[which][client]:
            model[which][client] -= 1
            several[which].leave(client)


def test_kinds_are_counted_apart() -> None:
    mine = SharedQuotas(2).join(1)
    assert [counts.enter(CLIENT) for counts in (mine.connections, mine.lookups, mine.name_server_connections)] == [
        1
    ] * 3


def test_no_client_is_taken_for_less_than_it_has_and_hardly_any_for_more() -> None:
    quotas = SharedQuotas(2)
    one, two = (quotas.join(number).connections for number in range(2))
    clients = [f"10.{number >> 8}.{number & 255}.7" for number in range(3000)]
    chance = random.Random(5)
    has = {client: chance.randrange(4) for client in clients}
    for client in clients:
        for _ in range(has[client]):
            one.enter(client)
    more = 0
    for client in clients:
        said = two.enter(client)
        assert said > has[client]
        more += said - 1 - has[client]
    assert more < 0.1 * sum(has.values())


def test_what_a_dead_process_had_is_taken_back() -> None:
    quotas = SharedQuotas(2)
    mine = quotas.join(0).connections
    mine.enter(CLIENT)

    def enter() -> None:
        theirs = quotas.join(1)
        for _ in range(5):
            theirs.connections.enter(CLIENT)
            theirs.lookups.enter(CLIENT)
        signal.pause()

    with child(enter):
        eventually(lambda: said_now(mine) == 6, "the other one has entered")
    assert said_now(mine) == 6
    quotas.clear(1)
    assert said_now(mine) == 1
    assert quotas.join(1).connections.enter(CLIENT) == 2


def said_now(counts: Counts) -> int:
    """What the client has, without having more afterwards."""
    said = counts.enter(CLIENT) - 1
    counts.leave(CLIENT)
    return said


def test_the_next_one_in_its_place_starts_with_nothing_even_if_nobody_cleared() -> None:
    quotas = SharedQuotas(2)
    quotas.join(1).connections.enter(CLIENT)
    assert quotas.join(1).connections.enter(CLIENT) == 1
    assert quotas.join(0).connections.enter(CLIENT) == 2


def test_processes_that_are_killed_while_they_count_leave_nothing() -> None:
    """Children enter and leave as fast as they can and are killed, wherever they are."""
    quotas = SharedQuotas(3)
    mine = quotas.join(0).connections
    clients = [f"192.0.2.{number}" for number in range(20)]

    def churn(number: int) -> None:
        counts = quotas.join(number).connections
        while True:
            for client in clients:
                counts.enter(client)
            for client in clients:
                counts.leave(client)

    for turn in range(20):
        number = 1 + turn % 2
        pid = fork(partial(churn, number))
        most = 0
        for _ in range(200):
            most = max(most, mine.enter(CLIENT))
            mine.leave(CLIENT)
        kill(pid)
        quotas.clear(number)
        assert most <= 2 + 1, "another client shares no more than a place"
    assert [mine.enter(client) for client in clients] == [1] * len(clients)


def test_of_two_that_enter_at_once_not_both_get_the_last_place() -> None:
    """Children take and give back one place as fast as they can; each says how often it was not alone in it."""
    quotas = SharedQuotas(2)

    def take(number: int) -> None:
        mine, inside = quotas.join(number).connections, quotas.join(number).lookups
        for _ in range(5000):
            if mine.enter(CLIENT) <= 1:
                assert inside.enter(CLIENT) == 1
                inside.leave(CLIENT)
            mine.leave(CLIENT)

    children = [fork(partial(take, number)) for number in range(2)]
    assert [wait(pid) for pid in children] == [0, 0]


def test_more_processes_than_can_be_told_apart_are_an_error() -> None:
    with pytest.raises(ValueError, match="5000 processes"):
        SharedQuotas(5000)
