"""What the gateway knows of names: kept as long as it may be used, and in bounded room."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.name_table import HOLDERS, NAMES_OF_ADDRESS, NameLimits, NameTable

A, B, C = Hostname("a.example"), Hostname("b.example"), Hostname("c.example")
ONE, TWO, THREE = (ip_address(f"203.0.113.{number}") for number in (1, 2, 3))
SIX = ip_address("2001:db8::1")


def table(**limits: Any) -> NameTable:
    return NameTable(NameLimits(**({"grace": 10.0} | limits)))


def learn(
    names: NameTable,
    name: Hostname,
    *addresses: Address,
    until: float = 100.0,
    client: str = "10.0.0.2",
    now: float = 0.0,
) -> None:
    names.learn(name, addresses, until=until, client=client, now=now)


def test_nothing_is_known_at_first() -> None:
    names = table()
    assert not names.has(A, ONE, 0.0)
    assert names.addresses_of(A, 0.0) == names.names_of(ONE, 0.0) == ()
    assert len(names) == 0


def test_what_was_learned_counts_for_its_name_only() -> None:
    names = table()
    learn(names, A, ONE, SIX)
    assert names.has(A, ONE, 0.0)
    assert names.has(A, SIX, 0.0)
    assert not names.has(A, TWO, 0.0)
    assert not names.has(B, ONE, 0.0)


def test_an_address_counts_until_the_grace_after_its_time_to_live_is_over() -> None:
    names = table(grace=10)
    learn(names, A, ONE, until=100)
    assert names.has(A, ONE, 109.9)
    assert not names.has(A, ONE, 110.0)
    assert names.addresses_of(A, 110.0) == names.names_of(ONE, 110.0) == ()


def test_another_answer_adds_and_takes_nothing_away() -> None:
    names = table()
    learn(names, A, ONE)
    learn(names, A, TWO)
    assert names.has(A, ONE, 0.0)
    assert names.addresses_of(A, 0.0) == (TWO, ONE)


def test_a_shorter_time_to_live_does_not_shorten_a_longer_one() -> None:
    names = table(grace=0)
    learn(names, A, ONE, until=100)
    learn(names, A, ONE, until=50)
    assert names.has(A, ONE, 99.0)


def test_what_is_over_when_it_is_learned_is_not_kept() -> None:
    names = table(grace=10)
    learn(names, A, ONE, until=10, now=20)
    assert len(names) == 0


def test_no_address_is_no_knowledge() -> None:
    names = table()
    learn(names, A)
    assert len(names) == 0
    learn(names, A, ONE)
    learn(names, A)
    assert names.has(A, ONE, 0.0)


def test_all_names_of_an_address_are_found() -> None:
    names = table()
    learn(names, B, ONE)
    learn(names, A, ONE, until=50)
    assert names.names_of(ONE, 0.0) == (A, B)
    assert names.names_of(ONE, 70.0) == (B,)
    learn(names, B, ONE)
    assert names.names_of(ONE, 0.0) == (B, A), "what was learned last comes first"


def test_of_an_address_with_thousands_of_names_those_that_were_learned_last_are_looked_at() -> None:
    names = table(names_per_client=10_000)
    learn(names, A, ONE, client="10.0.0.3")
    for number in range(3000):
        learn(names, Hostname(f"{number}.example"), ONE)
    learn(names, A, ONE, client="10.0.0.3")
    found = names.names_of(ONE, 0.0)
    assert found[:2] == (A, "2999.example")
    assert len(found) == NAMES_OF_ADDRESS


def test_clients_without_number_that_ask_for_one_name_take_no_room() -> None:
    names = table()
    for number in range(1000):
        learn(names, A, ONE, client=f"2001:db8::{number:x}")
    assert len(names._held) == len(names._names[A].holders) == HOLDERS
    assert names.has(A, ONE, 0.0)


def test_expired_names_and_addresses_leave_as_others_come() -> None:
    names = table(grace=0)
    learn(names, A, ONE, until=10)
    learn(names, B, ONE, until=100)
    learn(names, B, TWO, until=100, now=20)
    assert len(names) == 1
    for second in range(1000):
        learn(names, C, ip_address(0xC6120000 + second), until=second + 3.0, now=float(second))
    assert len(names._names[C].addresses) < 10


# --- bounds ---


def test_a_name_has_at_most_so_many_addresses_and_the_oldest_goes_first() -> None:
    names = table(addresses_per_name=2)
    learn(names, A, ONE)
    learn(names, A, TWO)
    learn(names, A, ONE)  # learned anew, so TWO is the oldest now
    learn(names, A, THREE)
    assert names.addresses_of(A, 0.0) == (THREE, ONE)
    assert names.names_of(TWO, 0.0) == ()


def test_a_client_that_asks_for_much_loses_what_it_learned_longest_ago() -> None:
    names = table(names_per_client=2)
    for name in (A, B, C):
        learn(names, name, ONE)
    assert [names.has(name, ONE, 0.0) for name in (A, B, C)] == [False, True, True]


def test_what_another_client_learned_too_is_kept_for_it() -> None:
    names = table(names_per_client=2)
    learn(names, A, ONE, client="10.0.0.3")
    for name in (A, B, C):
        learn(names, name, ONE)
    assert names.has(A, ONE, 0.0)
    assert len(names) == 3


def test_a_flood_by_one_client_leaves_the_others_what_they_know() -> None:
    names = table(names_per_client=10, names=100)
    learn(names, A, ONE, client="10.0.0.3")
    for number in range(1000):
        learn(names, Hostname(f"{number}.example"), TWO)
    assert names.has(A, ONE, 0.0)
    assert len(names) == 11


def test_there_are_at_most_so_many_names() -> None:
    names = table(names=2)
    for number, name in enumerate((A, B, C)):
        learn(names, name, ONE, client=f"10.0.0.{number}")
    assert [names.has(name, ONE, 0.0) for name in (A, B, C)] == [False, True, True]


def test_there_are_at_most_so_many_addresses_in_all() -> None:
    names = table(addresses=3)
    learn(names, A, ONE, TWO)
    learn(names, B, ONE, TWO)
    assert [names.has(name, ONE, 0.0) for name in (A, B)] == [False, True]


@pytest.mark.parametrize("bad", [{"grace": -1}, {"names": 0}, {"addresses": 0}, {"names_per_client": 0}])
def test_a_limit_that_cannot_be_is_an_error(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        table(**bad)


# --- laws ---

_NAMES = [A, B, C]
_ADDRESSES = [ONE, TWO, THREE, SIX]
_Lesson = tuple[Hostname, list[Address], int, str]
_LESSONS = st.lists(
    st.tuples(
        st.sampled_from(_NAMES),
        st.lists(st.sampled_from(_ADDRESSES), max_size=3),
        st.integers(0, 40),
        st.sampled_from(["x", "y"]),
    ),
    max_size=12,
)


def _known(lessons: Iterable[_Lesson], now: float) -> set[tuple[Hostname, Address]]:
    names = table(grace=5)
    for name, addresses, until, client in lessons:
        learn(names, name, *addresses, until=float(until), client=client)
    by_name = {(name, address) for name in _NAMES for address in _ADDRESSES if names.has(name, address, now)}
    assert by_name == {(name, address) for name in _NAMES for address in names.addresses_of(name, now)}
    assert by_name == {(name, address) for address in _ADDRESSES for name in names.names_of(address, now)}
    return by_name


@given(_LESSONS, st.integers(0, 50), st.randoms())
def test_the_order_of_lessons_does_not_matter(lessons: list[_Lesson], now: int, chance: Random) -> None:
    shuffled = list(lessons)
    chance.shuffle(shuffled)
    naive = {(name, one) for name, addresses, until, _ in lessons for one in addresses if until + 5 > now}
    assert _known(lessons, now) == _known(shuffled, now) == naive


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.lists(st.integers(1, 30), max_size=6), st.integers(0, 9), st.integers(0, 3)),
        max_size=60,
    )
)
def test_no_bound_is_ever_passed_and_nothing_hangs_in_the_air(
    lessons: list[tuple[int, list[int], int, int]],
) -> None:
    names = table(grace=2, names=5, addresses=12, addresses_per_name=4, names_per_client=3)
    for now, (number, hosts, lifetime, client) in enumerate(lessons):
        addresses = [ip_address(0xCB007100 + host) for host in hosts]
        learn(
            names,
            Hostname(f"{number}.example"),
            *addresses,
            until=float(now + lifetime),
            client=str(client),
            now=float(now),
        )
        kept = names._names
        assert len(kept) <= 5
        assert names._addresses == sum(len(known.addresses) for known in kept.values()) <= 12
        assert all(0 < len(known.addresses) <= 4 or known.until > now for known in kept.values())
        assert all(len(held) <= 3 for held in names._held.values())
        assert {(n, a) for n, known in kept.items() for a in known.addresses} == {
            (n, a) for a, found in names._at.items() for n in found
        }
        assert {(n, c) for n, known in kept.items() for c in known.holders} == {
            (n, c) for c, held in names._held.items() for n in held
        }
