"""A redirected connection of bytes says no name: the rule's name is found by the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from egress_gateway.gate.byte_names import find_byte_host, find_byte_name
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, Settings
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.rule import EgressRule, RuleAction
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import Names, Recorder, rule

DB_AT, ELSEWHERE = ip_address("203.0.113.12"), ip_address("203.0.113.66")
DB = Hostname("db.example")
CLIENT = "10.66.0.2"


def gate_with(
    *rules: EgressRule, names: Mapping[str, Sequence[str]] | None = None, **limits: Any
) -> tuple[Gatekeeper, Names]:
    resolver = Names(names if names is not None else {"db.example": [str(DB_AT)]})
    gate = Gatekeeper(resolver, Recorder(), Settings(limits=Limits(**limits)))
    gate.use(RuleSet.build(rules or [rule("db.example", (5432, "tcp"))]))
    gate.open()
    return gate, resolver


async def test_by_what_clients_were_told_without_asking_anybody() -> None:
    gate, resolver = gate_with(rule("*.example", (5432, "tcp")))
    gate.names.learn(DB, [DB_AT], ttl=60, client="10.66.0.3")
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) == DB
    assert resolver.asked == []


async def test_a_name_at_the_address_that_no_rule_allows_as_bytes_is_passed_over() -> None:
    gate, _ = gate_with(rule("*.example", (5432, "tcp")), rule("a.example", (5432, "https")))
    for name in ("a.example", "db.example"):
        gate.names.learn(Hostname(name), [DB_AT], ttl=60, client=CLIENT)
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) == DB


async def test_by_what_the_resolver_sees_now() -> None:
    gate, resolver = gate_with()
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) == DB
    assert resolver.asked == ["db.example"]


async def test_an_address_that_was_found_so_counts_when_it_is_dialled_whatever_the_next_answer_is() -> None:
    gate, _ = gate_with()
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) == DB
    assert gate.names.has(DB, DB_AT)


REFUSED: dict[str, tuple[EgressRule, str, int]] = {
    "another address": (rule("db.example", (5432, "tcp")), str(ELSEWHERE), 5432),
    "another port": (rule("db.example", (5432, "tcp")), str(DB_AT), 5433),
    "a rule that wants TLS or HTTP": (rule("db.example", (5432, "https")), str(DB_AT), 5432),
    "a rule that denies": (rule("db.example", (5432, "tcp"), action=RuleAction.DENY), str(DB_AT), 5432),
}


@pytest.mark.parametrize(("only", "address", "port"), REFUSED.values(), ids=REFUSED)
async def test_no_name_is_found_for(only: EgressRule, address: str, port: int) -> None:
    gate, _ = gate_with(only)
    assert await find_byte_name(gate, ip_address(address), port, CLIENT) is None


async def test_names_that_no_rule_allows_as_bytes_are_not_asked_for() -> None:
    gate, resolver = gate_with(rule("db.example", (5432, "https")), rule("no.example", (5433, "tcp")))
    await find_byte_name(gate, DB_AT, 5432, CLIENT)
    assert resolver.asked == []


async def test_only_so_many_names_are_asked_for_one_connection() -> None:
    rules = [rule(f"{number:02}.example", (5432, "tcp")) for number in range(40)]
    gate, resolver = gate_with(*rules, names_per_dial=3)
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) is None
    assert len(resolver.asked) == 3


async def test_a_name_that_does_not_resolve_stands_in_no_others_way() -> None:
    gate, _ = gate_with(rule("a.example", (5432, "tcp")), rule("db.example", (5432, "tcp")))
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) == DB


async def test_a_closed_gate_finds_nothing() -> None:
    gate, resolver = gate_with()
    gate.close("it is shutting down")
    assert await find_byte_name(gate, DB_AT, 5432, CLIENT) is None
    assert resolver.asked == []


HOSTS: dict[str, tuple[list[EgressRule], str | None]] = {
    "a rule for the address: it, without a look-up": ([rule("203.0.113.12", (5432, "tcp"))], str(DB_AT)),
    "a rule for a name that has it: the name": ([rule("db.example", (5432, "tcp"))], "db.example"),
    "no rule, and none for names on this port: the address, to be refused": (
        [rule("203.0.113.99", (5432, "tcp"))],
        str(DB_AT),
    ),
    "no rule for it, but names on this port: a word may help": (
        [rule("203.0.113.99", (5432, "tcp")), rule("www.example", (5432, "https"))],
        None,
    ),
    "a rule for the address that wants HTTP: a word": ([rule("203.0.113.12", (5432, "http"))], None),
    "a port of no rule at all: a word, to be refused by": ([rule("db.example", (1, "tcp"))], None),
}


@pytest.mark.parametrize(("rules", "expected"), HOSTS.values(), ids=HOSTS)
async def test_the_host_of_a_connection_whatever_is_spoken(rules: list[EgressRule], expected: str | None) -> None:
    gate, resolver = gate_with(*rules)
    host = await find_byte_host(gate, DB_AT, 5432, CLIENT)
    assert (host and str(host)) == expected
    assert resolver.asked == (["db.example"] if expected == "db.example" else [])
