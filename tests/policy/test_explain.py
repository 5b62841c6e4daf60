"""Hints, and the smallest rule that would allow what was refused, which must hold what it promises."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from egress_gateway.config.load import parse_documents
from egress_gateway.policy.addresses import AddressClass, classify
from egress_gateway.policy.decide import decide
from egress_gateway.policy.destination import judge
from egress_gateway.policy.explain import Explanation, explain, rule_name, smallest_rule
from egress_gateway.policy.hostname import Hostname, MalformedHost, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import AddressRange, EgressRule, ExactName, Port, Protocol, RuleAction
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import refuse
from support.relay_server import rule

RULES = RuleSet.build(
    [
        rule("*.google.example", (443, "https"), name="google"),
        rule("a.example", (443, "https"), (8443, "https"), name="a"),
        rule("plain.example", (80, "http"), (81, "http"), name="plain"),
        rule("plain.example", (81, "http"), name="not-81", action=RuleAction.DENY),
        rule("www.shop.example", (443, "https"), name="shop"),
        rule("evil.shop.example", (443, "https"), name="evil", action=RuleAction.DENY),
    ]
)


def explained(host: str, port: int = 443, spoken: Spoken = Spoken.UNKNOWN, sni: str | None = None) -> Explanation:
    request = Request(parse_host(host), port, spoken, sni=Hostname(sni) if sni else None)
    verdict = decide(RULES, request)
    assert not verdict.allowed
    return explain(RULES, request, verdict)


def nearest(explanation: Explanation) -> str:
    return explanation.nearest.key if explanation.nearest else ""


def test_the_apex_that_a_wildcard_does_not_cover() -> None:
    told = explained("google.example")
    assert told.hint == "a wildcard *.google.example does not cover google.example itself; a rule must name it"
    assert nearest(told) == "default/google"


def test_the_port_that_is_missing() -> None:
    told = explained("a.example", 80)
    assert told.hint == "the port is what is missing: a.example is allowed on 443, 8443, not on 80"
    assert nearest(told) == "default/a"


def test_a_port_that_is_denied_is_not_offered() -> None:
    assert (
        explained("plain.example", 82).hint == "the port is what is missing: plain.example is allowed on 80, not on 82"
    )


@pytest.mark.parametrize(
    ("host", "port", "spoken", "hint"),
    [
        ("plain.example", 80, Spoken.TLS, "the rule does not admit TLS on port 80"),
        ("a.example", 443, Spoken.HTTP2, ""),
        ("a.example", 443, Spoken.OTHER, ""),
    ],
)
def test_the_protocol_that_is_missing(host: str, port: int, spoken: Spoken, hint: str) -> None:
    told = explained(host, port, spoken, host if spoken is Spoken.TLS else None)
    assert told.hint == (f"the protocol is what is missing: {hint}" if hint else "")


def test_a_neighbour_of_the_same_registered_name() -> None:
    told = explained("api.shop.example")
    assert told.hint == "default/shop allows www.shop.example, not api.shop.example"
    assert nearest(told) == "default/shop"


def test_a_rule_with_many_destinations_is_told_in_short() -> None:
    names = tuple(ExactName(Hostname(f"h{number}.a.example")) for number in range(6))
    ruleset = RuleSet.build([EgressRule("default", "many", names, (Port(443, Protocol.HTTPS),))])
    request = Request(Hostname("x.a.example"), 443)
    hint = explain(ruleset, request, decide(ruleset, request)).hint
    assert hint.startswith("default/many allows h0.a.example, ")
    assert hint.endswith("h3.a.example and 2 more, not x.a.example")


def test_where_nothing_is_near_nothing_is_said() -> None:
    told = explained("nobody.test")
    assert (told.nearest, told.hint) == (None, "")
    assert told.smallest_rule


def test_a_rule_that_denies_is_named_and_no_rule_is_offered() -> None:
    told = explained("evil.shop.example")
    assert (nearest(told), told.hint, told.smallest_rule) == ("default/evil", "", "")


def test_a_verdict_of_rules_that_have_changed_since_is_explained_without_nonsense() -> None:
    request = Request(Hostname("a.example"), 80)
    told = explain(RuleSet.empty(), request, refuse(Reason.PORT_NOT_ALLOWED))
    assert (told.nearest, told.hint) == (None, "")


CONTRADICTIONS = [Reason.SNI_MISMATCH, Reason.HOST_MISMATCH, Reason.MALFORMED_REQUEST, Reason.INTERNAL_ERROR]


@pytest.mark.parametrize("reason", CONTRADICTIONS)
def test_no_rule_is_offered_where_none_would_help(reason: Reason) -> None:
    assert explain(RULES, Request(Hostname("a.example"), 443), refuse(reason)).smallest_rule == ""


# --- the smallest rule ---


def built(text: str) -> EgressRule:
    """The rule that a document says, read without the code that reads rule files."""
    document = yaml.safe_load(text)
    assert document["kind"] == "EgressRule"
    spec = document["spec"]
    destination = spec["destination"]
    services = destination["services"] if "services" in destination else [destination["service"]]
    made = []
    for service in services:
        host = parse_host(service)
        made.append(ExactName(host) if isinstance(host, str) else AddressRange.of(host))
    ports = tuple(Port(port["port"], Protocol(port["protocol"])) for port in spec["ports"])
    private = destination.get("allowPrivate", False)
    assert isinstance(private, bool)
    return EgressRule("default", document["metadata"]["name"], tuple(made), ports, allow_private=private)


SMALLEST = {
    "a name and TLS": (Request(Hostname("www.a.example"), 443), "v1alpha2", "https"),
    "plain HTTP": (Request(Hostname("www.a.example"), 80), "v1alpha2", "http"),
    "plain HTTP to another port": (Request(Hostname("www.a.example"), 8080, Spoken.HTTP), "v1alpha2", "http"),
    "plain HTTP to port 443 wants TLS": (Request(Hostname("www.a.example"), 443, Spoken.HTTP), "v1alpha2", "https"),
    "bytes": (Request(Hostname("www.a.example"), 22, Spoken.OTHER), "v1alpha2", "tcp"),
    "a public address": (Request(ip_address("93.184.216.34"), 443), "v1alpha2", "https"),
    "a private address": (Request(ip_address("10.0.0.1"), 443), "v1", "https"),
    "an IPv6 address": (Request(ip_address("2606:4700::1"), 443), "v1", "https"),
    "TLS to an address names no host": (
        Request(ip_address("93.184.216.34"), 443, Spoken.TLS, original=ip_address("93.184.216.34")), "v1alpha2", "tcp",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("request_", "version", "protocol"), SMALLEST.values(), ids=SMALLEST)
def test_the_smallest_rule_has_the_form_that_fits(request_: Request, version: str, protocol: str) -> None:
    told = explain(RuleSet.empty(), request_, decide(RuleSet.empty(), request_))
    document = yaml.safe_load(told.smallest_rule)
    assert document["apiVersion"].endswith(f"/{version}")
    assert document["spec"]["ports"] == [{"port": request_.port, "protocol": protocol}]


@pytest.mark.parametrize("address", ["224.0.0.1", "240.0.0.1", "255.255.255.255", "ff02::1"])
def test_no_rule_is_offered_for_an_address_that_none_can_open(address: str) -> None:
    request = Request(ip_address(address), 443)
    assert explain(RuleSet.empty(), request, decide(RuleSet.empty(), request)).smallest_rule == ""


hosts = st.one_of(
    st.text("abcz0129.-_ü", min_size=1, max_size=24),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["169.254.169.254", "10.0.0.1", "fd00:ec2::254", "::1", "64:ff9b::a00:1", "true", "null", "1e3.x"]),
)


@given(hosts, st.integers(1, 65535) | st.sampled_from([80, 443]), st.sampled_from(Spoken), st.booleans())
def test_the_smallest_rule_really_allows_the_request(text: str, port: int, spoken: Spoken, named: bool) -> None:
    try:
        host = parse_host(text)
    except MalformedHost:
        return
    sni = host if spoken is Spoken.TLS and named and isinstance(host, str) else None
    request = Request(host, port, spoken, sni=sni)
    made = explain(RuleSet.empty(), request, decide(RuleSet.empty(), request)).smallest_rule
    if not made:
        assert not isinstance(host, str)
        assert classify(host) in (AddressClass.RESERVED, AddressClass.MULTICAST)
        return
    alone = built(made)
    verdict = decide(RuleSet.build([alone]), request)
    assert verdict.allowed, (verdict.reason, made)
    assert verdict.rule is alone
    if not isinstance(host, str):
        assert judge(alone, [host]).allowed == (host,), made
    parsed = parse_documents(made, "smallest.yaml")
    assert parsed.errors == (), made
    (theirs,) = parsed.rules
    assert (theirs.destinations, theirs.ports, theirs.allow_private) == (
        alone.destinations,
        alone.ports,
        alone.allow_private,
    )


@given(hosts)
def test_a_rule_for_addresses_that_were_refused_opens_them(text: str) -> None:
    try:
        host = parse_host(text)
    except MalformedHost:
        return
    request = Request(host, 443)
    made = explain(RULES, request, refuse(Reason.ADDRESS_NOT_ALLOWED)).smallest_rule
    if made:
        address = ip_address("10.0.0.1") if isinstance(host, str) else host
        assert judge(built(made), [address]).allowed == (address,)


@given(hosts)
def test_the_name_of_a_rule_is_one_that_a_rule_may_have(text: str) -> None:
    try:
        host = parse_host(text)
    except MalformedHost:
        return
    name = rule_name(host)
    assert 1 <= len(name) <= 63
    assert name.strip("-") == name
    assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("www.example.com", "allow-www-example-com"),
        ("10.0.0.1", "allow-10-0-0-1"),
        ("::1", "allow-ipv6-0--1"),
        ("::", "allow-ipv6-0--0"),
        ("fd00::", "allow-ipv6-fd00--0"),
        ("2606:4700::1", "allow-ipv6-2606-4700--1"),
    ],
)
def test_the_name_of_a_rule_tells_its_host(host: str, name: str) -> None:
    assert rule_name(parse_host(host)) == name


# --- allowPrivate ---

INSIDE = RuleSet.build(
    [
        rule("*.corp.test", (443, "https"), name="inside", allow_private=True),
        rule("*.outside.test", (443, "https"), name="outside"),
    ]
)


def told_of(host: str, port: int = 443, spoken: Spoken = Spoken.UNKNOWN) -> Explanation:
    request = Request(parse_host(host), port, spoken)
    return explain(INSIDE, request, decide(INSIDE, request))


@pytest.mark.parametrize(
    ("host", "port", "spoken", "private"),
    [
        ("localhost", 8080, Spoken.UNKNOWN, True),
        ("app.localhost", 8080, Spoken.UNKNOWN, True),
        ("notlocalhost", 8080, Spoken.UNKNOWN, False),
        ("git.corp.test", 22, Spoken.UNKNOWN, True),
        ("git.corp.test", 443, Spoken.OTHER, True),
        ("git.outside.test", 22, Spoken.UNKNOWN, False),
        ("git.outside.test", 443, Spoken.OTHER, False),
        ("corp.test", 443, Spoken.UNKNOWN, False),
    ],
)
def test_the_smallest_rule_may_reach_inside_where_the_host_is_known_to_be(
    host: str, port: int, spoken: Spoken, private: bool
) -> None:
    assert built(told_of(host, port, spoken).smallest_rule).allow_private is private


def test_a_neighbour_inside_is_a_hint_that_the_host_may_be_inside_too() -> None:
    said = "default/inside has allowPrivate: true, which corp.test needs as well unless its addresses are public"
    assert told_of("corp.test").hint.endswith(f"; {said}")
    assert told_of("corp.test", 80).hint == f"default/inside allows *.corp.test, not corp.test; {said}"
    assert "allowPrivate" not in told_of("outside.test").hint


def test_another_name_can_be_given() -> None:
    assert built(smallest_rule(Hostname("a.example"), 443, "https", name="mine")).name == "mine"


def test_a_rule_for_a_network_is_near_by_its_port() -> None:
    ruleset = RuleSet.build([rule("192.0.2.0/24", (443, "tcp"), name="net")])
    request = Request(ip_address("192.0.2.7"), 80)
    assert explain(ruleset, request, decide(ruleset, request)).hint.endswith("192.0.2.7 is allowed on 443, not on 80")
    assert ip_network("192.0.2.0/24").version == 4
