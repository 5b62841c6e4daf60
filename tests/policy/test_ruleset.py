"""Rules add up, the more specific destination wins, a deny beats what is as specific or less; all against a naive
re-implementation that tries every rule."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.policy.decide import decide
from egress_gateway.policy.hostname import Host, Hostname, parse_host
from egress_gateway.policy.index import matches, specificity
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import (
    AddressCheck,
    AddressRange,
    Destination,
    EgressRule,
    ExactName,
    Family,
    Port,
    Protocol,
    RuleAction,
    TlsMode,
    Wildcard,
)
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment, Verdict
from support.relay_server import rule

A = Hostname("a.example")


def ask(rules: list[EgressRule], host: str, port: int = 443, spoken: Spoken = Spoken.UNKNOWN) -> Verdict:
    return decide(RuleSet.build(rules), Request(parse_host(host), port, spoken))


# --- a naive decision, to hold the real one against ---

Entry = tuple[EgressRule, Destination, Port]


def naive_slot(rules: list[EgressRule], host: Host, port: int) -> list[Entry]:
    """All that speaks of the most specific destination that matches and has the port, the smaller key first."""
    entries = [
        (one, destination, entry)
        for one in sorted(rules, key=lambda one: (one.namespace, one.name))
        for destination in one.destinations
        for entry in one.ports
        if entry.number == port and matches(destination, host)
    ]
    best = max((specificity(destination) for _, destination, _ in entries), default=None)
    return [entry for entry in entries if specificity(entry[1]) == best]


def naive_decide(rules: list[EgressRule], request: Request) -> tuple[Treatment, Reason, EgressRule | None, int]:
    slot = naive_slot(rules, request.host, request.port)
    if not slot:
        numbers = {port.number for one in rules for port in one.ports}
        slots = [naive_slot(rules, request.host, number) for number in numbers]
        open_elsewhere = any(other and all(one.action is RuleAction.ALLOW for one, _, _ in other) for other in slots)
        return Treatment.REFUSE, Reason.PORT_NOT_ALLOWED if open_elsewhere else Reason.NO_RULE, None, 0
    denying = [one for one, _, _ in slot if one.action is RuleAction.DENY]
    if denying:
        return Treatment.REFUSE, Reason.DENIED_BY_RULE, denying[0], 0
    _, _, port = slot[0]
    alike = [one for one, _, other in slot if other.treatment_key == port.treatment_key]
    winner = next((one for one in alike if one.allow_private), alike[0])
    if request.authority not in (None, request.host):
        return Treatment.REFUSE, Reason.HOST_MISMATCH, winner, 0
    if request.sni not in (None, request.host):
        return Treatment.REFUSE, Reason.SNI_MISMATCH, winner, 0
    if request.sni is None and request.spoken is Spoken.TLS and port.family is not Family.TCP:
        return Treatment.REFUSE, Reason.SNI_MISSING, winner, 0
    what = naive_treatment(port, request.spoken)
    if isinstance(what, Reason):
        return Treatment.REFUSE, what, winner, 0
    return what, Reason.ALLOWED, winner, port.dialled


def naive_treatment(port: Port, spoken: Spoken) -> Treatment | Reason:
    if port.family is Family.TCP:
        return Treatment.FORWARD if spoken is Spoken.HTTP else Treatment.BYTES
    if spoken is Spoken.UNKNOWN:
        return Treatment.AWAIT
    if spoken is Spoken.OTHER:
        return Reason.PROTOCOL_UNKNOWN
    if spoken is Spoken.HTTP2:
        return Reason.HTTP2_NOT_SUPPORTED
    if port.family is Family.HTTP:
        return Treatment.FORWARD if spoken is Spoken.HTTP else Reason.PROTOCOL_NOT_ALLOWED
    if spoken is Spoken.HTTP:
        return Reason.PROTOCOL_NOT_ALLOWED if port.tls_mode is TlsMode.PASSTHROUGH else Treatment.ORIGINATE
    return Reason.PROTOCOL_NOT_ALLOWED if port.tls_mode is TlsMode.ORIGINATE else Treatment.PASSTHROUGH


names = st.sampled_from(["a.example", "b.a.example", "xa.example", "example", "c.example"]).map(Hostname)
addresses = st.sampled_from(["192.0.2.1", "192.0.2.200", "2001:db8::1"]).map(ip_address)
hosts = st.one_of(names, addresses)
destinations = st.one_of(
    names.map(ExactName),
    st.sampled_from(["", ".example", ".a.example", "a.example", "xample"]).map(Wildcard),
    st.sampled_from(["192.0.2.1/32", "192.0.2.0/24", "0.0.0.0/0", "::/0", "2001:db8::/32"])
    .map(ip_network)
    .map(AddressRange),
)
ports = st.builds(
    Port,
    st.sampled_from([80, 443]),
    st.sampled_from(Protocol),
    st.sampled_from([None, None, 8443]),
    st.sampled_from([None, None, *TlsMode]),
)
rules = st.lists(
    st.builds(
        EgressRule,
        st.sampled_from(["default", "shop"]),
        st.text("abc", min_size=1, max_size=3),
        st.lists(destinations, min_size=1, max_size=3, unique=True).map(tuple),
        st.lists(ports, min_size=1, max_size=2, unique_by=lambda port: port.number).map(tuple),
        st.sampled_from([RuleAction.ALLOW, RuleAction.ALLOW, RuleAction.ALLOW, RuleAction.DENY]),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.key,
)
requests = st.builds(
    Request,
    hosts,
    st.sampled_from([80, 443, 22]),
    st.sampled_from(Spoken),
    st.one_of(st.none(), names),
    st.one_of(st.none(), hosts),
)


@given(rules, requests)
def test_the_decision_is_that_of_the_naive_one(made: list[EgressRule], request: Request) -> None:
    ruleset = RuleSet.build(made)
    for _ in range(2):  # the second answer comes from the slot's memory
        verdict = decide(ruleset, request)
        assert (verdict.treatment, verdict.reason, verdict.rule, verdict.port) == naive_decide(made, request)


@given(rules, requests, st.randoms())
def test_the_order_of_the_rules_does_not_matter(made: list[EgressRule], request: Request, random: Random) -> None:
    shuffled = list(made)
    random.shuffle(shuffled)
    assert decide(RuleSet.build(shuffled), request) == decide(RuleSet.build(made), request)
    assert set(RuleSet.build(shuffled).conflicts) == set(RuleSet.build(made).conflicts)


@given(rules, requests)
def test_without_rules_that_deny_one_rule_more_takes_nothing_away_but_by_another_treatment(
    made: list[EgressRule], request: Request
) -> None:
    allowing = [one for one in made if one.action is RuleAction.ALLOW]
    if not allowing:
        return
    before = decide(RuleSet.build(allowing[1:]), request)
    after = decide(RuleSet.build(allowing), request)
    if before.allowed and not after.allowed:
        assert before.rule is not None
        families = {one.treatment_key for rule in (before.rule, allowing[0]) for one in rule.ports}
        assert len(families) > 1


@given(requests)
def test_the_empty_rule_set_denies_everything(request: Request) -> None:
    for empty in (RuleSet.empty(), RuleSet.build([])):
        verdict = decide(empty, request)
        assert (verdict.treatment, verdict.reason, verdict.rule) == (Treatment.REFUSE, Reason.NO_RULE, None)


@given(rules, hosts)
def test_the_ports_of_a_host_are_those_that_the_slots_say(made: list[EgressRule], host: Host) -> None:
    ruleset = RuleSet.build(made)
    found = ruleset.ports_of(host)
    assert found == {number: slot for number in (80, 443) if (slot := ruleset.find(host, number)) is not None}
    assert ruleset.knows(host) == any(slot.allows for slot in found.values())


# --- by example ---


def test_rules_add_up() -> None:
    made = [
        rule("a.example", (80, "http")),
        rule("a.example", (443, "https"), name="more"),
        rule("b.example", (1, "tcp")),
    ]
    assert ask(made, "a.example", 80).allowed
    assert ask(made, "a.example", 443).allowed
    assert ask(made, "b.example", 1).allowed
    assert not ask(made, "b.example", 80).allowed
    assert RuleSet.build(made).conflicts == ()


SPECIFIC = {
    "exact before a wildcard": ("a.example", "*.example", "a.example"),
    "a longer wildcard before a shorter": ("*.a.example", "*.example", "b.a.example"),
    "a wildcard before the star": ("*.example", "*", "a.example"),
    "a wildcard inside a label before the star": ("*example", "*", "a.example"),
    "a longer wildcard inside a label before one at a dot": ("*a.example", "*.example", "ba.example"),
    "one address before a network": ("192.0.2.1", "192.0.2.0/24", "192.0.2.1"),
    "a longer prefix before a shorter": ("192.0.2.0/24", "0.0.0.0/0", "192.0.2.1"),
    "IPv6 as well": ("2001:db8::/64", "2001:db8::/32", "2001:db8::1"),
}


@pytest.mark.parametrize(("narrow", "wide", "host"), SPECIFIC.values(), ids=SPECIFIC)
def test_between_different_treatments_the_more_specific_destination_wins(narrow: str, wide: str, host: str) -> None:
    specific = rule(narrow, (443, "https"), name="z")
    general = rule(wide, (443, "tcp"), name="a")
    verdict = ask([general, specific], host)
    assert verdict.rule is specific
    assert RuleSet.build([general, specific]).conflicts == ()


def test_between_equals_the_smaller_key_wins_and_the_loser_is_named_with_the_reason() -> None:
    first, second = rule("a.example", (443, "https"), name="a"), rule("a.example", (443, "tcp"), name="b")
    ruleset = RuleSet.build([second, first])
    assert decide(ruleset, Request(A, 443)).rule is first
    (conflict,) = ruleset.conflicts
    assert (conflict.winner, conflict.loser) == (first, second)
    assert str(conflict) == (
        "default/b has no effect on a.example port 443: default/a treats it differently and comes first "
        "(the smaller namespace/name wins)"
    )


def test_the_namespace_is_compared_before_the_name() -> None:
    # As one text, "a-b/x" would come before "a/x".
    first = EgressRule("a", "x", (ExactName(A),), (Port(443, Protocol.HTTPS),))
    second = EgressRule("a-b", "x", (ExactName(A),), (Port(443, Protocol.TCP),))
    assert decide(RuleSet.build([second, first]), Request(A, 443)).rule is first


def test_equal_treatment_is_no_conflict_whatever_it_is_called() -> None:
    made = [rule("a.example", (80, "http"), name="a"), rule("a.example", (80, "grpc"), name="b")]
    assert RuleSet.build(made).conflicts == ()


def test_among_rules_that_want_the_same_the_one_that_may_reach_private_addresses_counts() -> None:
    plain = rule("a.example", (443, "https"), name="a")
    private = rule("a.example", (443, "https"), name="b", allow_private=True)
    assert ask([plain, private], "a.example").rule is private
    other = rule("a.example", (443, "tcp"), name="c", allow_private=True)
    assert ask([plain, other], "a.example").rule is plain


DENY = {
    "as specific": ("a.example", "a.example", False),
    "more specific": ("a.example", "*.example", False),
    "less specific": ("*.example", "a.example", True),
    "a network inside a network": ("192.0.2.0/25", "192.0.2.0/24", False),
    "a network around a network": ("192.0.2.0/24", "192.0.2.0/25", True),
}


@pytest.mark.parametrize(("denied", "allowed", "expected"), DENY.values(), ids=DENY)
def test_a_deny_beats_every_allow_that_is_as_specific_or_less(denied: str, allowed: str, expected: bool) -> None:
    made = [
        rule(denied, (443, "https"), name="z", action=RuleAction.DENY),
        rule(allowed, (443, "https"), name="a", allow_private=True),
    ]
    host = "192.0.2.1" if "/" in denied else "a.example"
    verdict = ask(made, host)
    assert verdict.allowed is expected
    if not expected:
        assert (verdict.reason, verdict.rule) == (Reason.DENIED_BY_RULE, made[0])


def test_a_deny_for_one_port_leaves_the_others() -> None:
    made = [rule("a.example", (443, "https"), (80, "http")), rule("*", (80, "http"), name="no", action=RuleAction.DENY)]
    made.append(rule("a.example", (80, "http"), name="never", action=RuleAction.DENY))
    assert ask(made, "a.example", 443).allowed
    assert ask(made, "a.example", 80).reason is Reason.DENIED_BY_RULE


def test_a_deny_holds_for_an_address_in_any_spelling() -> None:
    made = [rule("::/0", (443, "tcp")), rule("0.0.0.0/0", (443, "tcp"), name="four"),
            rule("203.0.113.66", (443, "tcp"), name="no", action=RuleAction.DENY)]  # fmt: skip
    for spelling in ("203.0.113.66", "[::ffff:203.0.113.66]", "0xcb007142", "::ffff:cb00:7142"):
        assert ask(made, spelling).reason is Reason.DENIED_BY_RULE, spelling


def test_a_host_that_is_denied_wherever_it_is_named_is_not_known() -> None:
    made = [rule("*.example", (443, "https")), rule("a.example", (443, "https"), name="no", action=RuleAction.DENY)]
    ruleset = RuleSet.build(made)
    assert not ruleset.knows(A)
    assert ruleset.knows(Hostname("b.example"))
    assert decide(ruleset, Request(A, 80)).reason is Reason.NO_RULE


def test_a_hint_about_the_apex_comes_from_a_wildcard_only() -> None:
    wildcard, exact = rule("*.b.example", (443, "https")), rule("x.a.example", (443, "https"))
    ruleset = RuleSet.build([wildcard, exact])
    assert ruleset.find_below(Hostname("b.example"), 443) is wildcard
    assert ruleset.find_below(Hostname("b.example"), 80) is None
    assert ruleset.find_below(A, 443) is None
    assert ruleset.find_below(ip_address("192.0.2.1"), 443) is None


def test_a_neighbour_is_a_rule_that_allows_the_same_registered_name() -> None:
    allowing = rule("www.a.example", (443, "https"), name="b")
    ruleset = RuleSet.build([rule("x.a.example", (443, "https"), name="a", action=RuleAction.DENY), allowing])
    assert ruleset.neighbour(Hostname("api.a.example")) is allowing
    assert ruleset.neighbour(A) is allowing
    assert ruleset.neighbour(Hostname("example")) is None
    assert ruleset.neighbour(Hostname("other.example")) is None
    assert ruleset.neighbour(ip_address("192.0.2.1")) is None


def test_a_rule_set_tells_its_rules_and_revision() -> None:
    one, two = rule("b.example", (1, "tcp"), name="b"), rule("a.example", (1, "tcp"), name="a")
    ruleset = RuleSet.build([one, two], revision=7)
    assert (ruleset.rules, ruleset.revision) == ((two, one), 7)
    assert RuleSet.empty().rules == ()


def test_two_rules_that_check_the_address_differently_want_different_treatment() -> None:
    first = rule("a.example", (443, "https"), name="a", check=AddressCheck.REDIAL)
    second = rule("a.example", (443, "https"), name="b")
    ruleset = RuleSet.build([second, first])
    assert [(conflict.winner, conflict.loser) for conflict in ruleset.conflicts] == [(first, second)]
    slot = ruleset.find(A, 443)
    assert slot is not None
    assert slot.allowed_by is first
