"""Which names may be asked for, and which of their addresses may be told."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from egress_gateway.nameserver.permission import Denied, Permission, may_ask
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import EgressRule, RuleAction
from egress_gateway.policy.ruleset import RuleSet
from support.relay_server import rule

DENY = RuleAction.DENY
RULES = [
    rule("a.example", (443, "https")),
    rule("*.wild.example", (80, "http")),
    rule("*-end.example", (80, "http")),
    rule("no.wild.example", (80, "http"), action=DENY),
    rule("half.example", (80, "http"), name="half"),
    rule("half.example", (443, "https"), name="half-denied", action=DENY),
    rule("denied.example", (80, "http"), action=DENY),
    rule("203.0.113.0/24", (443, "tcp")),
]
LONG = "x" * 49


def outcome(host: str, *rules: EgressRule, max_label: int = 48) -> Reason | tuple[int, ...]:
    found = may_ask(RuleSet.build(rules or RULES), Hostname(host), max_label)
    return found.reason if isinstance(found, Denied) else tuple(found.slots)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("a.example", (443,), id="a name that a rule spells out"),
        pytest.param("b.a.example", Reason.NO_RULE, id="a name below it"),
        pytest.param("example", Reason.NO_RULE, id="a name above it"),
        pytest.param("b.wild.example", (80,), id="a name under a wildcard"),
        pytest.param("b.c.wild.example", (80,), id="a deep name under a wildcard"),
        pytest.param("wild.example", Reason.NO_RULE, id="a wildcard does not cover its apex"),
        pytest.param("no.wild.example", Reason.DENIED_BY_RULE, id="a name that is denied under a wildcard"),
        pytest.param("denied.example", Reason.DENIED_BY_RULE, id="a name that is denied"),
        pytest.param("half.example", (80,), id="a name that is denied on one port and allowed on another"),
        pytest.param("other.example", Reason.NO_RULE, id="any other name"),
        pytest.param(f"{LONG}.wild.example", Reason.LABEL_TOO_LONG, id="a long label for a star"),
        pytest.param(f"{LONG[:-1]}.wild.example", (80,), id="a label that is just short enough"),
        pytest.param(f"b.{LONG}.wild.example", Reason.LABEL_TOO_LONG, id="a long label anywhere under a star"),
        pytest.param(f"{LONG[:-1]}-end.example", (80,), id="a long label of which the star is only a part"),
        pytest.param(f"{LONG}-end.example", Reason.LABEL_TOO_LONG, id="a star that is a long part of a label"),
    ],
)
def test_names(host: str, expected: Reason | tuple[int, ...]) -> None:
    assert outcome(host) == expected


def test_a_long_name_that_a_rule_spells_out_is_not_limited() -> None:
    host = f"{LONG}.wild.example"
    rules = [*RULES, rule(host, (443, "https"))]
    assert outcome(host, *rules) == (443,)
    assert outcome(f"b.{LONG}.example", rule(f"*.{LONG}.example", (80, "http"))) == (80,), "nor the rule's own labels"


def test_without_rules_nothing_may_be_asked() -> None:
    assert may_ask(RuleSet.empty(), Hostname("a.example"), 48) == Denied(Reason.NO_RULE)


def test_a_denial_tells_its_rule() -> None:
    found = may_ask(RuleSet.build(RULES), Hostname("denied.example"), 48)
    assert isinstance(found, Denied)
    assert found.rule is RULES[6]
    too_long = may_ask(RuleSet.build(RULES), Hostname(f"{LONG}.wild.example"), 48)
    assert isinstance(too_long, Denied)
    assert too_long.rule is RULES[1]


PUBLIC, PRIVATE, METADATA, LOOPBACK = "93.184.216.34", "10.0.0.5", "169.254.169.254", "127.0.0.1"
SIX = "2606:2800:220:1::1"


def told(*addresses: str, rules: list[EgressRule], own: str = "", own_ports: tuple[int, ...] = ()) -> list[str]:
    ruleset = RuleSet.build(rules)
    found = may_ask(ruleset, Hostname("a.example"), 48)
    assert isinstance(found, Permission)

    def is_own(address: Address) -> bool:
        return address.is_loopback or str(address) == own

    judged = found.reachable(
        [ip_address(text) for text in addresses],
        public_ranges=(),
        own_ports=own_ports,
        is_own=is_own,
        denies=ruleset.denies,
    )
    assert {str(one) for one, _ in judged.refused} == set(addresses) - {str(one) for one in judged.allowed}
    return [str(address) for address in judged.allowed]


def test_public_addresses_are_told_in_their_order_and_others_are_not() -> None:
    rules = [rule("a.example", (443, "https"))]
    assert told(SIX, PRIVATE, PUBLIC, LOOPBACK, METADATA, rules=rules) == [SIX, PUBLIC]


def test_private_ones_are_told_where_a_rule_may_reach_them_on_whatever_port() -> None:
    rules = [
        rule("a.example", (443, "https"), name="public"),
        rule("a.example", (5432, "tcp"), name="private", allow_private=True),
    ]
    assert told(PRIVATE, PUBLIC, METADATA, rules=rules) == [PRIVATE, PUBLIC]


def test_an_address_that_is_denied_on_every_port_of_the_name_is_not_told() -> None:
    rules = [rule("a.example", (80, "http"), (443, "https"))]
    half = rule(f"{PUBLIC}/32", (80, "tcp"), name="deny-80", action=DENY)
    other_half = rule(f"{PUBLIC}/32", (443, "tcp"), name="deny-443", action=DENY)
    assert told(PUBLIC, SIX, rules=[*rules, half]) == [PUBLIC, SIX]
    assert told(PUBLIC, SIX, rules=[*rules, half, other_half]) == [SIX]


def test_the_gateways_own_ports_are_not_told_of() -> None:
    private = rule("a.example", (8080, "tcp"), allow_private=True)
    assert told(PRIVATE, rules=[private], own=PRIVATE) == [PRIVATE]
    both = rule("a.example", (8080, "tcp"), (9000, "tcp"), allow_private=True)
    ruleset = RuleSet.build([private])
    found = may_ask(ruleset, Hostname("a.example"), 48)
    assert isinstance(found, Permission)
    judged = found.reachable(
        [ip_address(PRIVATE)], public_ranges=(), own_ports=(8080,), is_own=lambda _: True, denies=ruleset.denies
    )
    assert judged.allowed == ()
    assert told(PRIVATE, rules=[both], own=PRIVATE, own_ports=(8080,)) == [PRIVATE]


def test_a_mapped_address_is_judged_as_what_it_carries() -> None:
    rules = [rule("a.example", (443, "https"))]
    assert told(f"::ffff:{PUBLIC}", rules=rules) == [f"::ffff:{PUBLIC}"]
    ruleset = RuleSet.build(rules)
    found = may_ask(ruleset, Hostname("a.example"), 48)
    assert isinstance(found, Permission)
    judged = found.reachable(
        [ip_address(f"::ffff:{PRIVATE}")], public_ranges=(), own_ports=(), is_own=lambda _: False, denies=ruleset.denies
    )
    assert judged.allowed == ()
