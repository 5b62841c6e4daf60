"""What rules say of a port."""

from __future__ import annotations

import pytest

from egress_gateway.policy.rule import EgressRule, RuleAction
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import rule


def test_the_names_that_are_bytes_on_a_port() -> None:
    rules = [
        rule("db.example", (5432, "tcp"), (443, "https")),
        rule("mongo.example", (5432, "mongo")),
        rule("*.wild.example", (5432, "tcp")),
        rule("198.51.100.0/24", (5432, "tcp")),
        rule("no.example", (5432, "tcp"), action=RuleAction.DENY),
    ]
    by_port = RuleSet.build(rules).by_port
    assert by_port.byte_names(5432) == ("db.example", "mongo.example")
    assert by_port.byte_names(443) == by_port.byte_names(1) == ()


SPOKEN: dict[str, tuple[list[EgressRule], bool]] = {
    "bytes only": ([rule("db.example", (443, "tcp"))], False),
    "TLS too": ([rule("db.example", (443, "tcp")), rule("a.example", (443, "https"))], True),
    "HTTP for a wildcard": ([rule("*.a.example", (443, "http"))], True),
    "HTTP for an address": ([rule("198.51.100.1", (443, "http"))], False),
    "on another port": ([rule("a.example", (80, "https"))], False),
    "a name that is denied": ([rule("a.example", (443, "https"), action=RuleAction.DENY)], False),
}


@pytest.mark.parametrize(("rules", "expected"), SPOKEN.values(), ids=SPOKEN)
def test_whether_names_are_said_on_a_port(rules: list[EgressRule], expected: bool) -> None:
    assert RuleSet.build(rules).by_port.is_spoken(443) is expected


BY_ADDRESS: dict[str, tuple[list[EgressRule], bool]] = {
    "no rule speaks of the port": ([rule("a.example", (80, "http"))], False),
    "addresses only": ([rule("198.51.100.0/24", (443, "tcp"))], True),
    "a name too": ([rule("198.51.100.0/24", (443, "tcp")), rule("a.example", (443, "https"))], False),
    "a name that is denied": (
        [rule("198.51.100.0/24", (443, "tcp")), rule("a.example", (443, "https"), action=RuleAction.DENY)], True,
    ),
    "addresses that are denied": ([rule("198.51.100.0/24", (443, "tcp"), action=RuleAction.DENY)], False),
}  # fmt: skip


@pytest.mark.parametrize(("rules", "expected"), BY_ADDRESS.values(), ids=BY_ADDRESS)
def test_whether_a_port_goes_by_address_alone(rules: list[EgressRule], expected: bool) -> None:
    assert RuleSet.build(rules).by_port.goes_by_address(443) is expected
