"""The one door: closed by default, and every failure inside is a refusal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from egress_gateway.dns.answer import Answer, ResolveError, ResolveFailure
from egress_gateway.gate import gatekeeper as module
from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.gate.live import LiveConnection
from egress_gateway.gate.settings import Limits, Settings
from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.explain import Explanation
from egress_gateway.policy.hostname import Address, Hostname, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.rule import AddressCheck, EgressRule, ExactName, Port, Protocol, RuleAction
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Treatment, Verdict
from support.relay_server import Names, Recorder, rule

A = Hostname("a.example")
ASK = Request(A, 443, Spoken.TLS, sni=A)
PUBLIC = "93.184.216.34"


@pytest.fixture(autouse=True)
def only_loopback_is_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the network that tests run in, every address is this machine's."""
    monkeypatch.setattr(module, "is_own", lambda address: address.is_loopback)


def gatekeeper(
    *rules: EgressRule, names: Any = None, observer: Observer | None = None, **settings: Any
) -> tuple[Gatekeeper, Any]:
    seen = observer or Recorder()
    gate = Gatekeeper(names or Names({"a.example": [PUBLIC]}), seen, Settings(**settings))
    gate.use(RuleSet.build(rules or [rule("a.example", (443, "https"))]))
    gate.open()
    return gate, seen


async def find(gate: Gatekeeper, request: Request = ASK, protocol: str = "tls") -> Route | NoRoute:
    verdict = gate.decide(request, protocol)
    assert verdict.allowed
    return await gate.find_addresses(request, verdict, gate.begin(("127.0.0.1", 1)), protocol)


# --- closed by default ---


def test_it_starts_closed_whatever_the_rules_say() -> None:
    seen = Recorder()
    gate = Gatekeeper(Names({}), seen, Settings())
    assert gate.decide(ASK, "tls").reason is Reason.NOT_READY
    gate.use(RuleSet.build([rule("a.example", (443, "https"))]))
    assert not gate.decide(ASK, "tls").allowed, "rules alone do not open it"
    gate.open()
    assert gate.decide(ASK, "tls").allowed


def test_open_without_rules_it_refuses_everything() -> None:
    gate = Gatekeeper(Names({}), Recorder(), Settings())
    gate.open()
    assert gate.decide(ASK, "tls").reason is Reason.NO_RULE


def test_closed_again_it_refuses_everything() -> None:
    gate, _ = gatekeeper()
    gate.close("the gateway is shutting down")
    assert gate.decide(ASK, "tls").reason is Reason.NOT_READY
    assert gate.peek(ASK).reason is Reason.NOT_READY
    assert gate.closed_because == "the gateway is shutting down"


# --- failures inside are refusals ---


def raising(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize("error", [ValueError("x"), RecursionError(), MemoryError(), AssertionError(), KeyError(1)])
def test_a_decision_that_raises_is_a_refusal_counted_and_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate, seen = gatekeeper()
    monkeypatch.setattr(module.policy, "decide", raising(error))
    with caplog.at_level(logging.ERROR):
        verdict = gate.decide(ASK, "tls")
    assert (verdict.treatment, verdict.reason, verdict.rule) == (Treatment.REFUSE, Reason.INTERNAL_ERROR, None)
    assert seen.errors == ["decide"]
    assert seen.decisions == [verdict]
    assert "refused" in caplog.text


@pytest.mark.parametrize("answer", [None, True, "allowed", Treatment.BYTES, object()])
def test_a_decision_that_is_no_verdict_is_a_refusal(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = gatekeeper()
    monkeypatch.setattr(module.policy, "decide", lambda *_: answer)
    assert gate.decide(ASK, "tls").reason is Reason.INTERNAL_ERROR
    assert gate.peek(ASK).reason is Reason.INTERNAL_ERROR
    assert seen.errors == ["decide", "decide"]


class Resolving:
    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    async def resolve(self, host: str) -> Answer:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    "outcome",
    [OSError("x"), RuntimeError("x"), TimeoutError(), UnicodeError("x"), KeyError("x"), None, "93.184.216.34"],
    ids=repr,
)
async def test_a_resolver_that_fails_in_any_way_gives_no_address(outcome: object) -> None:
    gate, seen = gatekeeper(names=Resolving(outcome))
    route = await find(gate)
    assert isinstance(route, NoRoute)
    assert (route.reason, route.refused) == (Reason.INTERNAL_ERROR, True)
    assert seen.errors == ["find_addresses"]
    assert [verdict.reason for verdict in seen.decisions] == [Reason.INTERNAL_ERROR]


async def test_a_name_that_does_not_resolve_is_a_failure_and_not_a_refusal() -> None:
    gate, seen = gatekeeper(names=Resolving(ResolveError(ResolveFailure.NXDOMAIN, "a.example")))
    route = await find(gate)
    assert route == NoRoute(Reason.NAME_NOT_RESOLVED, "a.example: no such name", refused=False)
    assert [verdict.allowed for verdict in seen.decisions] == [True], "the rules had allowed it"
    assert seen.errors == []


async def test_a_cancelled_resolver_is_a_cancelled_request() -> None:
    gate, seen = gatekeeper(names=Resolving(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await find(gate)
    assert seen.decisions == []


async def test_an_answer_without_addresses_gives_none() -> None:
    gate, _ = gatekeeper(names=Resolving(Answer((), 0.0, "a.example")))
    route = await find(gate)
    assert route == NoRoute(Reason.ADDRESS_NOT_ALLOWED, "there is no address to dial", refused=True)


async def test_judging_that_raises_gives_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = gatekeeper()
    monkeypatch.setattr(module, "judge", raising(ZeroDivisionError()))
    route = await find(gate)
    assert isinstance(route, NoRoute)
    assert (route.reason, route.refused) == (Reason.INTERNAL_ERROR, True)
    assert seen.errors == ["find_addresses"]


async def test_an_address_whose_owner_cannot_be_told_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, _ = gatekeeper()
    monkeypatch.setattr(module, "is_own", raising(RuntimeError()))
    assert isinstance(await find(gate), NoRoute)


def test_explaining_that_raises_explains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = gatekeeper()
    monkeypatch.setattr(module, "explain", raising(RuntimeError()))
    assert gate.explain(ASK, gate.decide(ASK, "tls")) == Explanation(None, "", "")
    assert seen.errors == ["explain"]


class Broken(Observer):
    """Breaks the one promise an observer makes."""

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        raise RuntimeError


async def test_an_observer_that_raises_lets_nothing_out() -> None:
    gate, _ = gatekeeper(observer=Broken())
    with pytest.raises(RuntimeError):
        gate.decide(Request(Hostname("evil.example"), 443), "tls")
    with pytest.raises(RuntimeError):
        await find(gate)


def test_a_verdict_without_a_rule_opens_no_address() -> None:
    gate, _ = gatekeeper()
    verdict = Verdict(Treatment.BYTES, Reason.ALLOWED, None, 443)
    assert not gate.may_reuse(verdict, ip_address(PUBLIC))
    assert isinstance(gate._judge(verdict, (ip_address(PUBLIC),)), NoRoute)


# --- what is counted ---


def test_refusals_are_counted_when_decided_and_permissions_when_complete() -> None:
    gate, seen = gatekeeper()
    allowed = gate.decide(ASK, "tls")
    assert seen.decisions == []
    gate.allowed_again(allowed, "http")
    refused = gate.decide(Request(Hostname("evil.example"), 443), "tls")
    assert seen.decisions == [allowed, refused]
    gate.peek(Request(Hostname("evil.example"), 443))
    assert len(seen.decisions) == 2
    assert gate.refused(Reason.MALFORMED_REQUEST, "http") is seen.decisions[2]


@pytest.mark.parametrize(
    ("request_", "claim"),
    [
        (Request(A, 443, Spoken.TLS, sni=Hostname("b.example")), "sni"),
        (Request(A, 443, Spoken.HTTP, authority=Hostname("b.example")), "host"),
    ],
)
def test_a_contradiction_is_told_by_its_claim(request_: Request, claim: str) -> None:
    gate, seen = gatekeeper()
    gate.decide(request_, "tls")
    assert seen.mismatches == [claim]


def test_a_refusal_that_needs_no_rules_tells_its_claim_as_well() -> None:
    gate, seen = gatekeeper()
    gate.refused(Reason.CONNECTION_CHANGED_HOST, "http")
    gate.refused(Reason.NO_RULE, "http")
    assert seen.mismatches == ["connect"]


# --- addresses ---


async def test_a_name_is_resolved_once_and_every_address_judged() -> None:
    names = Names({"a.example": ["10.0.0.1", PUBLIC, "2606:4700::1", "127.0.0.1"]})
    gate, seen = gatekeeper(names=names)
    route = await find(gate)
    assert route == Route((ip_address(PUBLIC), ip_address("2606:4700::1")), 443)
    assert names.asked == ["a.example"]
    assert [verdict.allowed for verdict in seen.decisions] == [True]


async def test_the_exchange_tells_what_was_found() -> None:
    gate, _ = gatekeeper()
    verdict, exchange = gate.decide(ASK, "tls"), gate.begin(("127.0.0.1", 1))
    assert not exchange.verdict.allowed
    await gate.find_addresses(ASK, verdict, exchange, "tls")
    assert exchange.resolved == (ip_address(PUBLIC),)
    assert exchange.verdict is verdict


async def test_the_target_port_is_the_one_to_dial() -> None:
    made = EgressRule("default", "a", (ExactName(A),), (Port(443, Protocol.HTTPS, 8443),))
    gate, _ = gatekeeper(made)
    assert await find(gate) == Route((ip_address(PUBLIC),), 8443)


@pytest.mark.parametrize(
    ("addresses", "detail"),
    [
        (["10.0.0.1"], "10.0.0.1 (private) may not be reached without allowPrivate"),
        (["169.254.169.254"], "169.254.169.254 (metadata) may not be reached"),
        (["224.0.0.1"], "224.0.0.1 (multicast) may not be reached"),
        (
            [f"10.0.0.{number}" for number in range(6)],
            "10.0.0.0 (private), 10.0.0.1 (private), 10.0.0.2 (private), 10.0.0.3 (private) and 2 more "
            "may not be reached without allowPrivate",
        ),
    ],
)
async def test_a_name_with_only_addresses_that_may_not_be_reached(addresses: list[str], detail: str) -> None:
    gate, seen = gatekeeper(names=Names({"a.example": addresses}))
    exchange = gate.begin(("127.0.0.1", 1))
    route = await gate.find_addresses(ASK, gate.decide(ASK, "tls"), exchange, "tls")
    assert route == NoRoute(Reason.ADDRESS_NOT_ALLOWED, detail, refused=True)
    assert exchange.reason is Reason.ADDRESS_NOT_ALLOWED
    assert exchange.verdict.rule_key == "default/allow-a.example"
    assert [verdict.reason for verdict in seen.decisions] == [Reason.ADDRESS_NOT_ALLOWED]


async def test_an_address_is_not_resolved() -> None:
    names = Names({})
    gate, _ = gatekeeper(rule(PUBLIC, (443, "tcp")), names=names)
    route = await find(gate, Request(ip_address(PUBLIC), 443))
    assert route == Route((ip_address(PUBLIC),), 443)
    assert names.asked == []


ORIGINAL: dict[str, tuple[Sequence[str], str, Route | Reason]] = {
    "one of the name's addresses, and only that one is dialled": (
        [PUBLIC, "1.1.1.1"], "1.1.1.1", Route((ip_address("1.1.1.1"),), 443),
    ),
    "an address of somebody else": ([PUBLIC], "203.0.113.66", Reason.ADDRESS_MISMATCH),
    "the same address, mapped": ([PUBLIC], f"::ffff:{PUBLIC}", Route((ip_address(PUBLIC),), 443)),
    "the name's address is the mapped one": ([f"::ffff:{PUBLIC}"], PUBLIC, Route((ip_address(PUBLIC),), 443)),
    "the same number in another wrapping is another place": ([PUBLIC], "64:ff9b::5db8:d822", Reason.ADDRESS_MISMATCH),
    "one of the name's addresses, and private": ([PUBLIC, "10.0.0.1"], "10.0.0.1", Reason.ADDRESS_NOT_ALLOWED),
}  # fmt: skip


@pytest.mark.parametrize(("addresses", "original", "expected"), ORIGINAL.values(), ids=ORIGINAL)
async def test_the_address_that_a_transparent_client_dialled_must_be_one_of_the_names(
    addresses: Sequence[str], original: str, expected: Route | Reason
) -> None:
    gate, seen = gatekeeper(names=Names({"a.example": addresses}))
    route = await find(gate, Request(A, 443, Spoken.TLS, sni=A, original=ip_address(original)))
    if isinstance(expected, Reason):
        assert isinstance(route, NoRoute)
        assert (route.reason, route.refused) == (expected, True)
    else:
        assert route == expected
    assert seen.mismatches == (["address"] if expected is Reason.ADDRESS_MISMATCH else [])


TOLD, EVIL = ip_address("1.1.1.1"), ip_address("203.0.113.66")


async def dial_as(gate: Gatekeeper, address: Address, name: Hostname = A) -> tuple[Route | NoRoute, Exchange]:
    """A transparent client goes to `address` and says `name`."""
    request = Request(name, 443, Spoken.TLS, sni=name, original=address)
    verdict = gate.decide(request, "tls")
    exchange = gate.begin(("127.0.0.1", 1))
    return await gate.find_addresses(request, verdict, exchange, "tls"), exchange


def checking(check: AddressCheck, names: Names | None = None) -> tuple[Gatekeeper, Recorder]:
    return gatekeeper(rule("a.example", (443, "https"), check=check), names=names)


async def test_what_a_client_was_told_counts_although_the_resolver_sees_other_addresses_now() -> None:
    names = Names({"a.example": [PUBLIC]})
    gate, seen = gatekeeper(names=names)
    gate.names.learn(A, [TOLD], ttl=0, client="127.0.0.9")
    route, exchange = await dial_as(gate, TOLD)
    assert route == Route((TOLD,), 443)
    assert exchange.address_check == "match"
    assert names.asked == [], "nobody had to be asked"
    assert seen.mismatches == []


async def test_what_a_client_was_told_of_another_name_does_not_count() -> None:
    gate, _ = gatekeeper()
    gate.names.learn(Hostname("b.example"), [EVIL], ttl=60, client="127.0.0.1")
    route, _ = await dial_as(gate, EVIL)
    assert isinstance(route, NoRoute)
    assert route.reason is Reason.ADDRESS_MISMATCH


async def test_what_a_client_was_told_is_judged_like_any_address() -> None:
    gate, _ = gatekeeper()
    gate.names.learn(A, [ip_address("10.0.0.1")], ttl=60, client="127.0.0.1")
    route, _ = await dial_as(gate, ip_address("10.0.0.1"))
    assert isinstance(route, NoRoute)
    assert route.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_what_the_resolver_sees_for_one_connection_counts_for_the_next() -> None:
    names = Names({"a.example": ["1.1.1.1"]})
    gate, _ = gatekeeper(names=names)
    assert (await dial_as(gate, TOLD))[0] == Route((TOLD,), 443)
    names.names["a.example"] = [PUBLIC]
    assert (await dial_as(gate, TOLD))[0] == Route((TOLD,), 443)


async def test_a_change_of_rules_forgets_nothing_about_names() -> None:
    gate, _ = gatekeeper(names=Names({}))
    gate.names.learn(A, [TOLD], ttl=60, client="127.0.0.1")
    gate.use(RuleSet.build([rule("a.example", (443, "https"), name="another")]))
    assert (await dial_as(gate, TOLD))[0] == Route((TOLD,), 443)


async def test_redial_goes_to_the_names_own_address_and_counts_nothing() -> None:
    gate, seen = checking(AddressCheck.REDIAL)
    route, exchange = await dial_as(gate, EVIL)
    assert route == Route((ip_address(PUBLIC),), 443)
    assert exchange.address_check == "redialled"
    assert exchange.detail == "203.0.113.66 is not an address of a.example"
    assert exchange.verdict.allowed
    assert seen.mismatches == []


async def test_audit_goes_there_too_and_counts_it() -> None:
    gate, seen = checking(AddressCheck.AUDIT)
    route, exchange = await dial_as(gate, EVIL)
    assert route == Route((ip_address(PUBLIC),), 443)
    assert exchange.address_check == "audited"
    assert exchange.verdict.allowed
    assert seen.mismatches == ["address"]


@pytest.mark.parametrize("check", [AddressCheck.REDIAL, AddressCheck.AUDIT])
async def test_a_names_own_address_is_judged_where_it_is_redialled(check: AddressCheck) -> None:
    gate, _ = checking(check, Names({"a.example": ["10.0.0.1"]}))
    route, _ = await dial_as(gate, EVIL)
    assert isinstance(route, NoRoute)
    assert route.reason is Reason.ADDRESS_NOT_ALLOWED


async def test_names_that_are_known_go_on_while_no_name_server_answers() -> None:
    gate, _ = checking(AddressCheck.ENFORCE, Names({}))
    gate.names.learn(A, [TOLD], ttl=60, client="127.0.0.1")
    assert (await dial_as(gate, TOLD))[0] == Route((TOLD,), 443)
    route, _ = await dial_as(gate, EVIL)
    assert isinstance(route, NoRoute)
    assert (route.reason, route.refused) == (Reason.NAME_NOT_RESOLVED, False)


async def test_redial_goes_to_a_known_address_while_no_name_server_answers() -> None:
    gate, _ = checking(AddressCheck.REDIAL, Names({}))
    gate.names.learn(A, [TOLD], ttl=60, client="127.0.0.1")
    assert (await dial_as(gate, EVIL))[0] == Route((TOLD,), 443)


@pytest.mark.parametrize("check", AddressCheck)
async def test_a_host_header_with_another_address_than_the_one_dialled(check: AddressCheck) -> None:
    gate, _ = gatekeeper(rule(PUBLIC, (80, "http"), check=check))
    address = ip_address(PUBLIC)
    request = Request(address, 80, Spoken.HTTP, authority=address, original=EVIL)
    verdict = gate.decide(request, "http")
    route = await gate.find_addresses(request, verdict, gate.begin(("127.0.0.1", 1)), "http")
    if check is AddressCheck.ENFORCE:
        assert isinstance(route, NoRoute)
        assert route.reason is Reason.ADDRESS_MISMATCH
    else:
        assert route == Route((address,), 80)


# --- addresses that a rule denies, by whatever name ---


async def test_an_address_that_a_rule_denies_is_not_reached_by_a_name_either() -> None:
    no = rule("93.184.216.0/24", (443, "tcp"), name="no", action=RuleAction.DENY)
    gate, _ = gatekeeper(rule("a.example", (443, "https")), no, names=Names({"a.example": [PUBLIC, "1.1.1.1"]}))
    assert await find(gate) == Route((ip_address("1.1.1.1"),), 443)
    gate, _ = gatekeeper(rule("a.example", (443, "https")), no, names=Names({"a.example": [f"::ffff:{PUBLIC}"]}))
    route = await find(gate)
    assert isinstance(route, NoRoute)
    assert (route.reason, route.refused) == (Reason.ADDRESS_NOT_ALLOWED, True)
    assert not gate.may_reuse(gate.decide(ASK, "tls"), ip_address(PUBLIC))


async def test_a_deny_for_another_port_denies_nothing_here() -> None:
    no = rule("0.0.0.0/0", (80, "tcp"), name="no", action=RuleAction.DENY)
    gate, _ = gatekeeper(rule("a.example", (443, "https")), no)
    assert await find(gate) == Route((ip_address(PUBLIC),), 443)


def test_a_connection_to_an_address_that_is_denied_from_now_on_is_ended() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    ended: list[str] = []
    live(gate, "a.example", ended)
    no = rule(PUBLIC, (443, "tcp"), name="no", action=RuleAction.DENY)
    gate.use(RuleSet.build([rule("a.example", (443, "tcp")), no]))
    assert ended == ["a.example address_not_allowed"]


# --- a resolver that takes its time ---


class Waiting:
    """Answers when told to."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.asked = 0

    async def resolve(self, host: str) -> Answer:
        self.asked += 1
        await self.goes_on.wait()
        return Answer((ip_address(PUBLIC),), 0.0, host)


CHANGES: dict[str, tuple[list[EgressRule], Reason]] = {
    "no longer allow the host": ([], Reason.NO_RULE),
    "deny it": ([rule("a.example", (443, "https"), action=RuleAction.DENY)], Reason.DENIED_BY_RULE),
    "want another treatment": ([rule("a.example", (443, "tcp"))], Reason.PROTOCOL_NOT_ALLOWED),
}


@pytest.mark.parametrize(("rules", "reason"), CHANGES.values(), ids=CHANGES)
async def test_while_a_name_is_resolved_the_rules_change_and(rules: list[EgressRule], reason: Reason) -> None:
    resolver = Waiting()
    gate, seen = gatekeeper(names=resolver)
    finding = asyncio.create_task(find(gate))
    await asyncio.sleep(0)
    gate.use(RuleSet.build(rules))
    resolver.goes_on.set()
    route = await finding
    assert isinstance(route, NoRoute)
    assert (route.reason, route.refused) == (reason, True)
    assert [verdict.allowed for verdict in seen.decisions] == [False]


async def test_a_client_waits_for_so_many_names_and_no_more() -> None:
    resolver = Waiting()
    gate, _ = gatekeeper(names=resolver, limits=Limits(lookups_per_client=2))
    waiting = [asyncio.create_task(find(gate)) for _ in range(2)]
    await asyncio.sleep(0)
    third = await find(gate)
    assert isinstance(third, NoRoute)
    assert (third.reason, third.refused) == (Reason.NAME_NOT_RESOLVED, False)
    assert resolver.asked == 2
    resolver.goes_on.set()
    assert all(isinstance(route, Route) for route in await asyncio.gather(*waiting))
    assert isinstance(await find(gate), Route), "its share is free again"
    assert len(gate.quotas.lookups) == 0


# --- the gateway itself ---

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


async def test_a_port_of_our_own_is_not_dialled_on_an_address_of_our_own() -> None:
    names = Names({"a.example": ["127.0.0.1", "127.0.0.2"]})
    gate, seen = gatekeeper(names=names, public_ranges=LOOPBACK)
    gate.own_ports = frozenset({443})
    exchange = gate.begin(("127.0.0.1", 1))
    route = await gate.find_addresses(ASK, gate.decide(ASK, "tls"), exchange, "tls")
    assert route == NoRoute(Reason.OWN_ADDRESS, "127.0.0.1 port 443 is this gateway", refused=True)
    assert [verdict.reason for verdict in seen.decisions] == [Reason.OWN_ADDRESS]


async def test_another_port_of_our_own_address_is_an_address_like_any_other() -> None:
    gate, _ = gatekeeper(names=Names({"a.example": ["127.0.0.1"]}), public_ranges=LOOPBACK)
    gate.own_ports = frozenset({8080})
    assert await find(gate) == Route((ip_address("127.0.0.1"),), 443)


async def test_allow_private_does_not_open_our_own_port() -> None:
    made = rule("a.example", (443, "https"), allow_private=True)
    gate, _ = gatekeeper(made, names=Names({"a.example": ["127.0.0.1"]}))
    assert isinstance(await find(gate), Route)
    gate.own_ports = frozenset({443})
    route = await find(gate)
    assert isinstance(route, NoRoute)
    assert route.reason is Reason.OWN_ADDRESS


async def test_of_several_addresses_only_our_own_is_left_out() -> None:
    gate, _ = gatekeeper(names=Names({"a.example": ["127.0.0.1", PUBLIC]}), public_ranges=LOOPBACK)
    gate.own_ports = frozenset({443})
    assert await find(gate) == Route((ip_address(PUBLIC),), 443)


async def test_the_target_port_counts_for_our_own_ports_as_well() -> None:
    made = EgressRule("default", "a", (ExactName(A),), (Port(443, Protocol.HTTPS, 8080),), allow_private=True)
    gate, _ = gatekeeper(made, names=Names({"a.example": ["127.0.0.1"]}))
    gate.own_ports = frozenset({8080})
    route = await find(gate)
    assert isinstance(route, NoRoute)
    assert route.reason is Reason.OWN_ADDRESS


# --- a destination given as an address ---


def test_whether_an_address_may_be_dialled_is_known_without_asking_anybody() -> None:
    gate, seen = gatekeeper(
        rule("10.0.0.1", (443, "https")), rule(PUBLIC, (443, "https")), rule("a.example", (443, "https"))
    )
    private, public = Request(ip_address("10.0.0.1"), 443), Request(ip_address(PUBLIC), 443)
    barred = gate.judge_literal(private, gate.decide(private, "connect"))
    assert barred is not None
    assert barred.reason is Reason.ADDRESS_NOT_ALLOWED
    assert gate.judge_literal(public, gate.decide(public, "connect")) is None
    assert gate.judge_literal(ASK, gate.decide(ASK, "connect")) is None
    assert seen.decisions == []


def test_a_connection_may_be_used_again_only_by_a_verdict_that_may_reach_its_address() -> None:
    plain = rule("a.example", (443, "https"))
    private = rule("b.example", (443, "https"), allow_private=True)
    gate, _ = gatekeeper(plain, private)
    strict = gate.decide(ASK, "tls")
    loose = gate.decide(Request(Hostname("b.example"), 443), "tls")
    assert gate.may_reuse(strict, ip_address(PUBLIC))
    assert not gate.may_reuse(strict, ip_address("10.0.0.1"))
    assert gate.may_reuse(loose, ip_address("10.0.0.1"))


# --- rules that change ---


def live(
    gate: Gatekeeper, host: str, ended: list[str], *, port: int = 443, address: str = PUBLIC, **facts: Any
) -> LiveConnection:
    parsed = parse_host(host)
    request = Request(parsed, port, **facts)
    verdict = gate.decide(request, "tcp")
    assert verdict.allowed
    connection = LiveConnection(
        request, verdict.treatment, ip_address(address), verdict.port, lambda why: ended.append(f"{host} {why.reason}")
    )
    gate.enter(connection, verdict)
    return connection


def test_new_rules_end_exactly_what_they_no_longer_allow() -> None:
    names = ("a.example", "b.example", "c.example", "d.example", "e.example", "f.example")
    gate, _ = gatekeeper(*(rule(name, (443, "tcp")) for name in names))
    ended: list[str] = []
    for name in names:
        live(gate, name, ended)
    ended_now = gate.use(
        RuleSet.build(
            [
                rule("a.example", (443, "tcp")),
                rule("b.example", (443, "https")),
                rule("c.example", (80, "tcp")),
                rule("d.example", (443, "tcp"), action=RuleAction.DENY),
                rule("*.example", (443, "tcp"), name="more"),
            ]
        )
    )
    assert sorted(ended) == ["b.example protocol_not_allowed", "d.example denied_by_rule"]
    assert ended_now == 2
    assert len(gate.live) == len(names), "who ends a connection takes it out"


def test_a_connection_whose_address_may_no_longer_be_reached_is_ended() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp"), allow_private=True))
    ended: list[str] = []
    live(gate, "a.example", ended, address="10.0.0.1")
    gate.use(RuleSet.build([rule("a.example", (443, "tcp"))]))
    assert ended == ["a.example address_not_allowed"]


def test_a_connection_whose_port_is_another_now_is_ended() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    ended: list[str] = []
    live(gate, "a.example", ended)
    gate.use(RuleSet.build([EgressRule("default", "a", (ExactName(A),), (Port(443, Protocol.TCP, 8443),))]))
    assert ended == ["a.example protocol_not_allowed"]


def test_a_rule_under_another_name_that_allows_the_same_ends_nothing() -> None:
    gate, _ = gatekeeper()
    ended: list[str] = []
    live(gate, "a.example", ended, spoken=Spoken.TLS, sni=A)
    assert gate.use(RuleSet.build([rule("*.example", (443, "https"), name="other")])) == 0
    assert ended == []


def test_closing_ends_nothing_until_told_to() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    ended: list[str] = []
    live(gate, "a.example", ended)
    gate.close("shutting down")
    assert ended == []
    gate.end_all()
    assert ended == ["a.example not_ready"]


def test_what_is_left_is_not_ended_again() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    ended: list[str] = []
    gate.live.discard(live(gate, "a.example", ended))
    assert gate.use(RuleSet.empty()) == 0
    assert ended == []


def test_a_connection_that_was_being_made_while_the_rules_changed_is_ended_when_it_enters() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    request = Request(A, 443)
    verdict = gate.decide(request, "tcp")
    gate.use(RuleSet.empty())
    ended: list[Verdict] = []
    gate.enter(LiveConnection(request, verdict.treatment, ip_address(PUBLIC), 443, ended.append), verdict)
    assert [why.reason for why in ended] == [Reason.NO_RULE]


def test_a_connection_that_the_new_rules_allow_as_well_enters() -> None:
    gate, _ = gatekeeper(rule("a.example", (443, "tcp")))
    request = Request(A, 443)
    verdict = gate.decide(request, "tcp")
    gate.use(RuleSet.build([rule("a.example", (443, "tcp"))]))
    ended: list[Verdict] = []
    gate.enter(LiveConnection(request, verdict.treatment, ip_address(PUBLIC), 443, ended.append), verdict)
    assert ended == []


def test_where_judging_again_fails_every_connection_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, seen = gatekeeper(rule("*.example", (443, "tcp")))
    ended: list[str] = []
    for name in ("a.example", "b.example", "c.example"):
        live(gate, name, ended)
    monkeypatch.setattr(module, "judge", raising(RuntimeError()))
    assert gate.use(RuleSet.build([rule("*.example", (443, "tcp"))])) == 3
    assert ended.count("b.example internal_error") == 1
    assert len(ended) == 3
    assert seen.errors == ["judge_again"] * 3


# --- clients ---


def test_a_client_has_so_many_connections_and_no_more() -> None:
    gate, _ = gatekeeper(limits=Limits(connections_per_client=2))
    assert [gate.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert gate.admit("192.0.2.2"), "others are not concerned"
    gate.leave("192.0.2.1")
    gate.leave("192.0.2.1")
    assert gate.admit("192.0.2.1")


def test_clients_that_have_left_are_forgotten() -> None:
    gate, _ = gatekeeper()
    for number in range(100):
        gate.admit(f"192.0.2.{number}")
    for number in range(100):
        gate.leave(f"192.0.2.{number}")
    assert len(gate.quotas.connections) == 0


# --- exchanges ---


def test_an_exchange_is_refused_until_decided_and_has_a_name_of_its_own() -> None:
    gate, seen = gatekeeper()
    exchanges = [gate.begin(("192.0.2.1", 5)) for _ in range(100)]
    assert len({exchange.request_id for exchange in exchanges}) == 100
    assert exchanges[0].client == ("192.0.2.1", 5)
    gate.finish(exchanges[0])
    assert seen.exchanges == exchanges[:1]
    assert exchanges[0].duration >= 0
    assert not exchanges[0].verdict.allowed
