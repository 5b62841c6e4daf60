"""One question of a client, from its bytes to its answer, against a real name server upstream."""

from __future__ import annotations

import asyncio
import logging
import random
import string

import pytest

from dns import flags, message, rcode
from egress_gateway.dns import lookup
from egress_gateway.gate.settings import Limits
from egress_gateway.gate.turns import Buckets
from egress_gateway.nameserver import questions as module
from egress_gateway.nameserver.questions import client_of
from egress_gateway.policy.events import Observer
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import RuleAction
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict
from support.dns_server import DnsServer
from support.relay_server import rule
from support.waiting import until

from .conftest import CLIENT, Ask, Asking, said, shown

A_EXAMPLE = rule("a.example", (443, "https"))
WILD = rule("*.wild.example", (80, "http"))
FOUR, OTHER_FOUR, SIX = "203.0.113.10", "203.0.113.11", "2001:db8::10"
PRIVATE = "10.0.0.5"


@pytest.fixture
def asking(ask: Ask, dns: DnsServer) -> Asking:
    dns.set("a.example", [FOUR, OTHER_FOUR, SIX], ttl=60)
    return ask(A_EXAMPLE, WILD)


# --- addresses ---


async def test_addresses_of_the_family_that_was_asked_for(asking: Asking, dns: DnsServer) -> None:
    reply = await asking("a.example")
    assert shown(reply) == [f"a.example. 60 IN A {FOUR}", f"a.example. 60 IN A {OTHER_FOUR}"]
    assert shown(await asking("a.example", "AAAA")) == [f"a.example. 60 IN AAAA {SIX}"]
    assert reply.flags & dns_flags("RA")
    assert not reply.flags & dns_flags("AA", "AD")
    assert len(dns.queries) == 2, "the second was known"
    assert asking.reasons == ["allowed", "allowed"]
    assert asking.seen.exchanges == []


def dns_flags(*names: str) -> int:
    return sum(flags.from_text(name) for name in names)


async def test_what_is_handed_out_is_learned_before_it_is_sent(asking: Asking) -> None:
    await asking("a.example")
    await asking("a.example", "AAAA", client="2001:db8::7")
    assert asking.learned.told == [
        ("a.example", [FOUR, OTHER_FOUR], 60, CLIENT),
        ("a.example", [SIX], 60, "2001:db8::7"),
    ]


async def test_the_time_to_live_that_is_left_is_passed_on_and_capped(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [FOUR], ttl=60)
    dns.set("long.example", [FOUR], ttl=90_000)
    dns.set("zero.example", [FOUR], ttl=0)
    asking = ask(rule("*", (80, "http")), max_ttl=100)
    for name in ("a.example", "long.example", "zero.example"):
        await asking(name)
    asking.learned.told.clear()
    asking.clock.now += 20.5
    assert (await asking("a.example")).answer[0].ttl == 40
    assert (await asking("long.example")).answer[0].ttl == 100
    assert (await asking("zero.example")).answer[0].ttl == 0
    assert [(name, ttl) for name, _, ttl, _ in asking.learned.told] == [
        ("a.example", 40),
        ("long.example", 100),
        ("zero.example", 0),
    ]


async def test_a_name_in_any_spelling_is_the_same_name_and_is_answered_as_spelled(asking: Asking) -> None:
    reply = await asking("A.eXample")
    assert shown(reply)[0] == f"A.eXample. 60 IN A {FOUR}"
    assert asking.learned.told[0][0] == "a.example"


async def test_aliases_are_shown_with_the_least_time_to_live(ask: Ask, dns: DnsServer) -> None:
    dns.cname("a.example", "b.cdn.example", ttl=20)
    dns.cname("b.cdn.example", "c.cdn.example", ttl=90)
    dns.set("c.cdn.example", [FOUR], ttl=60)
    asking = ask(A_EXAMPLE)
    assert shown(await asking("a.example")) == [
        "a.example. 20 IN CNAME b.cdn.example.",
        "b.cdn.example. 20 IN CNAME c.cdn.example.",
        f"c.cdn.example. 20 IN A {FOUR}",
    ]
    assert asking.learned.told == [("a.example", [FOUR], 20, CLIENT)]
    assert said(await asking("b.cdn.example")) == "REFUSED BLOCKED no_rule", "which allows nobody to ask for them"


async def test_a_name_without_this_family_has_no_data(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [FOUR])
    asking = ask(A_EXAMPLE)
    reply = await asking("a.example", "AAAA")
    assert (said(reply), shown(reply), reply.authority) == ("NOERROR", [], [])
    assert asking.learned.told == []


async def test_a_name_that_does_not_exist_is_said_not_to(asking: Asking) -> None:
    assert said(await asking("none.wild.example")) == "NXDOMAIN"
    assert asking.reasons == ["allowed"]
    assert asking.seen.exchanges == []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("SERVFAIL", "SERVFAIL NETWORK_ERROR servfail"),
        ("REFUSED", "SERVFAIL NETWORK_ERROR refused"),
        ("silent", "SERVFAIL NO_REACHABLE_AUTHORITY timeout"),
        ("garbage", "SERVFAIL INVALID_DATA malformed"),
    ],
)
async def test_a_name_server_that_fails_is_a_failure(ask: Ask, dns: DnsServer, fault: str, says: str) -> None:
    asking = ask(WILD, **({"timeout": 0.2} if fault == "silent" else {}))
    if fault == "silent":
        dns.silent = True
    elif fault == "garbage":
        dns.tamper = lambda response: response.to_wire()[:-3]
    else:
        dns.fail("b.wild.example", fault)
    dns.set("b.wild.example", [FOUR])
    assert said(await asking("b.wild.example")) == says
    assert asking.reasons == ["allowed"]
    assert asking.learned.told == []


async def test_one_family_that_was_not_answered_is_said_so(
    asking: Asking, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "RESOLUTION_DELAY", 0.1)
    dns.set("b.wild.example", [FOUR])
    real = dns._answer
    monkeypatch.setattr(dns, "_answer", lambda data, over: None if b"\0\x1c\0\1" in data else real(data, over))
    assert shown(await asking("b.wild.example"))
    assert said(await asking("b.wild.example", "AAAA")) == "NOERROR NETWORK_ERROR one family was not answered"


# --- what is refused ---


@pytest.mark.parametrize(
    ("name", "kind", "says", "reason"),
    [
        pytest.param("denied.example", "A", "REFUSED BLOCKED no_rule", "no_rule", id="a name that no rule allows"),
        pytest.param("b.a.example", "HTTPS", "REFUSED BLOCKED no_rule", "no_rule", id="a name below an allowed one"),
        pytest.param("example", "NS", "REFUSED BLOCKED no_rule", "no_rule", id="a name above one"),
        pytest.param(".", "NS", "REFUSED BLOCKED malformed_host", "malformed_host", id="the root"),
        pytest.param("203.0.113.10", "A", "REFUSED BLOCKED malformed_host", "malformed_host", id="an address"),
        pytest.param("0x7f.1", "A", "REFUSED BLOCKED malformed_host", "malformed_host", id="an address in disguise"),
        pytest.param("a b.wild.example", "A", "REFUSED BLOCKED malformed_host", "malformed_host", id="a space"),
        pytest.param("a\\.b.wild.example", "A", "REFUSED BLOCKED malformed_host", "malformed_host",
                     id="a dot inside a label"),
        pytest.param("\\255.wild.example", "A", "REFUSED BLOCKED malformed_host", "malformed_host", id="not ASCII"),
        pytest.param("x" * 49 + ".wild.example", "A", "REFUSED BLOCKED label_too_long", "label_too_long",
                     id="a label that carries a message"),
        pytest.param("a.example", "AXFR", "REFUSED NOT_SUPPORTED protocol_not_allowed", "protocol_not_allowed",
                     id="the whole zone"),
        pytest.param("a.example", "MAILB", "REFUSED NOT_SUPPORTED protocol_not_allowed", "protocol_not_allowed",
                     id="another question about no record"),
        pytest.param("_9._https.a.example", "HTTPS", "REFUSED BLOCKED port_not_allowed", "port_not_allowed",
                     id="a service on a port that no rule allows"),
        pytest.param("_443._https.denied.example", "HTTPS", "REFUSED BLOCKED no_rule", "no_rule",
                     id="a service of a name that no rule allows"),
    ],
)  # fmt: skip
async def test_refused_counted_logged_and_nobody_asked(
    asking: Asking, dns: DnsServer, name: str, kind: str, says: str, reason: str
) -> None:
    reply = await asking(name, kind)
    assert (said(reply), shown(reply)) == (says, [])
    assert dns.queries == []
    assert asking.reasons == [reason]
    (exchange,) = asking.seen.exchanges
    assert (exchange.protocol, exchange.port, exchange.client) == ("DNS", 53, (CLIENT, 5353))
    assert (exchange.reason, exchange.verdict.allowed) == (Reason(reason), False)
    assert exchange.authority.endswith(":53")
    assert asking.learned.told == []


async def test_another_class_is_refused(asking: Asking, dns: DnsServer) -> None:
    assert said(await asking("a.example", "TXT", rdclass="CH")) == "REFUSED NOT_SUPPORTED protocol_not_allowed"
    assert said(await asking("version.bind", "TXT", rdclass="CH")) == "REFUSED BLOCKED no_rule"
    assert dns.queries == []


async def test_the_log_names_what_was_asked(asking: Asking) -> None:
    await asking("Denied.example", "AAAA")
    await asking("denied.example", "TYPE65280")
    await asking("we\\010ird.example")
    first, second, third = asking.seen.exchanges
    assert (first.method, first.authority, first.host) == ("AAAA", "denied.example:53", "denied.example")
    assert second.method == "", "a type of the client's choice is not a word of ours"
    assert (third.authority, third.host) == ("we\\010ird.example:53", None)
    assert third.detail == "character U+005C cannot be part of a host name"


async def test_the_operator_may_say_that_denied_names_do_not_exist(ask: Ask, dns: DnsServer) -> None:
    asking = ask(A_EXAMPLE, WILD, denied="nxdomain")
    assert said(await asking("denied.example")) == "NXDOMAIN BLOCKED no_rule"
    assert said(await asking("203.0.113.10")) == "NXDOMAIN BLOCKED malformed_host"
    assert said(await asking("a.example", "AXFR")) == "REFUSED NOT_SUPPORTED protocol_not_allowed"
    assert (await asking("denied.example")).authority == [], "or others would keep that"
    assert dns.queries == []


async def test_a_rule_that_denies_a_name_is_named(ask: Ask, dns: DnsServer) -> None:
    asking = ask(WILD, rule("no.wild.example", (80, "http"), action=RuleAction.DENY))
    assert said(await asking("no.wild.example")) == "REFUSED BLOCKED denied_by_rule"
    assert asking.seen.exchanges[0].verdict.rule_key == "default/allow-no.wild.example"
    assert dns.queries == []


async def test_random_labels_under_names_that_no_rule_allows_go_nowhere(asking: Asking, dns: DnsServer) -> None:
    for _ in range(50):
        secret = "".join(random.choices(string.ascii_lowercase, k=random.randint(1, 63)))
        for kind in ("A", "AAAA", "HTTPS", "TXT", "CNAME", "ANY"):
            assert said(await asking(f"{secret}.evil.example", kind, client=secret)) == "REFUSED BLOCKED no_rule"
    assert dns.queries == []


@pytest.mark.parametrize("kind", ["TXT", "MX", "NS", "SOA", "CNAME", "SRV", "NAPTR", "NULL", "TYPE65280", "DNSKEY"])
async def test_other_types_of_an_allowed_name_are_empty_and_nobody_is_asked(
    asking: Asking, dns: DnsServer, kind: str
) -> None:
    dns.record("a.example", "TXT", '"secret"')
    reply = await asking("a.example", kind)
    assert (said(reply), shown(reply)) == ("NOERROR", [])
    assert dns.queries == []
    assert asking.reasons == ["allowed"]


async def test_who_asks_for_everything_gets_next_to_nothing(asking: Asking, dns: DnsServer) -> None:
    assert shown(await asking("a.example", "ANY")) == ['a.example. 300 IN HINFO "RFC8482" ""']
    assert dns.queries == []


# --- addresses that may not be told ---


async def test_an_address_that_may_not_be_reached_is_not_told(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [PRIVATE, FOUR, "169.254.169.254", "127.0.0.1"])
    asking = ask(A_EXAMPLE)
    assert shown(await asking("a.example")) == [f"a.example. 60 IN A {FOUR}"]
    assert asking.learned.told == [("a.example", [FOUR], 60, CLIENT)]
    assert asking.reasons == ["allowed"]


async def test_where_no_address_is_left_there_is_no_data_and_a_line_about_it(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [PRIVATE, SIX])
    asking = ask(A_EXAMPLE)
    reply = await asking("a.example")
    assert (said(reply), shown(reply)) == ("NOERROR BLOCKED address_not_allowed", [])
    (exchange,) = asking.seen.exchanges
    assert exchange.detail == f"{PRIVATE} (private) may not be reached without allowPrivate"
    assert {str(one) for one in exchange.resolved} == {PRIVATE, SIX}
    assert exchange.verdict.rule_key == "default/allow-a.example"
    assert asking.reasons == ["address_not_allowed"]
    assert asking.learned.told == []


async def test_one_rule_that_may_reach_it_is_enough(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [PRIVATE])
    asking = ask(A_EXAMPLE, rule("a.example", (5432, "tcp"), name="db", allow_private=True))
    assert shown(await asking("a.example")) == [f"a.example. 60 IN A {PRIVATE}"]


async def test_an_address_that_a_rule_denies_is_not_told(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [FOUR, OTHER_FOUR])
    asking = ask(A_EXAMPLE, rule(f"{FOUR}/32", (443, "tcp"), action=RuleAction.DENY))
    assert shown(await asking("a.example")) == [f"a.example. 60 IN A {OTHER_FOUR}"]


# --- service bindings ---

ECH = "ech=AEX+DQBBGQAgACBcl/FWTU6V77HFpaXP7kyJ2v9vjyPZCrTLcLJHC4GaEAAEAAEAAQASY2xvdWRmbGFyZS1lY2guY29tAAA="


async def test_bindings_are_told_without_ech_and_their_hints_are_learned(asking: Asking, dns: DnsServer) -> None:
    dns.record("a.example", "HTTPS", f"1 . alpn=h2 {ECH} ipv4hint={FOUR},{PRIVATE} ipv6hint={SIX}", ttl=30)
    assert shown(await asking("a.example", "HTTPS")) == [
        f'a.example. 30 IN HTTPS 1 . alpn="h2" ipv4hint="{FOUR}" ipv6hint="{SIX}"'
    ]
    assert asking.learned.told == [("a.example", [FOUR, SIX], 30, CLIENT)]
    await asking("a.example", "HTTPS")
    assert dns.count("a.example") == 1, "asked for once, and no address at all"


async def test_svcb_is_told_as_https_is(asking: Asking, dns: DnsServer) -> None:
    dns.record("a.example", "SVCB", f"1 . alpn=h2 {ECH}")
    assert shown(await asking("a.example", "SVCB")) == ['a.example. 60 IN SVCB 1 . alpn="h2"']


async def test_of_bindings_that_lead_elsewhere_those_to_allowed_names_are_told(ask: Ask, dns: DnsServer) -> None:
    """A client that follows one dials an address of the other name and says its own; it must be known by both."""
    dns.record("a.example", "HTTPS", "0 b.wild.example.", "1 evil.example.", "2 . port=22", "3 . port=443", ttl=30)
    dns.set("b.wild.example", [OTHER_FOUR, PRIVATE], ttl=50)
    asking = ask(A_EXAMPLE, WILD)
    assert shown(await asking("a.example", "HTTPS")) == [
        "a.example. 30 IN HTTPS 0 b.wild.example.",
        'a.example. 30 IN HTTPS 3 . port="443"',
    ]
    assert asking.learned.told == [("a.example", [OTHER_FOUR], 80, CLIENT)]
    assert not dns.asked("evil.example")


async def test_where_the_other_name_has_no_address_the_binding_is_told_all_the_same(
    asking: Asking, dns: DnsServer
) -> None:
    dns.record("a.example", "HTTPS", "0 none.wild.example.")
    assert shown(await asking("a.example", "HTTPS")) == ["a.example. 60 IN HTTPS 0 none.wild.example."]
    assert asking.learned.told == []


async def test_bindings_under_an_alias_are_the_names_own(ask: Ask, dns: DnsServer) -> None:
    dns.cname("a.example", "edge.cdn.example")
    dns.record("edge.cdn.example", "HTTPS", "1 . alpn=h2", "2 edge.cdn.example. alpn=h3")
    asking = ask(A_EXAMPLE)
    assert shown(await asking("a.example", "HTTPS")) == [
        'a.example. 60 IN HTTPS 1 . alpn="h2"',
        'a.example. 60 IN HTTPS 2 . alpn="h3"',
    ]


async def test_a_service_on_another_port_is_asked_for_by_its_own_name(ask: Ask, dns: DnsServer) -> None:
    dns.record("_8443._https.a.example", "HTTPS", f"1 a.example. port=8443 alpn=h2 {ECH}")
    dns.set("a.example", [FOUR])
    asking = ask(rule("a.example", (8443, "https")))
    assert shown(await asking("_8443._https.A.example", "HTTPS")) == [
        '_8443._https.A.example. 60 IN HTTPS 1 a.example. alpn="h2" port="8443"'
    ]
    assert said(await asking("_8443._https.a.example", "A")) == "REFUSED BLOCKED no_rule"


@pytest.mark.parametrize("records", [[], ["1 evil.example."], ["1 . port=22"]])
async def test_no_binding_that_may_be_told_is_no_data(asking: Asking, dns: DnsServer, records: list[str]) -> None:
    if records:
        dns.record("a.example", "HTTPS", *records)
    reply = await asking("a.example", "HTTPS")
    assert (said(reply), shown(reply)) == ("NOERROR", [])


# --- limits ---


async def test_an_answer_that_does_not_fit_is_cut_not_learned_and_whole_over_tcp(ask: Ask, dns: DnsServer) -> None:
    addresses = [f"2001:db8::{number:x}" for number in range(1, 61)]
    dns.set("a.example", addresses)
    asking = ask(A_EXAMPLE)
    cut = await asking("a.example", "AAAA")
    assert (bool(cut.flags & flags.TC), shown(cut)) == (True, [])
    assert asking.learned.told == []
    whole = await asking("a.example", "AAAA", udp=False)
    assert [line.split()[-1] for line in shown(whole)] == addresses
    assert len(asking.learned.told[0][1]) == 60


async def test_who_asks_too_often_is_refused_counted_and_named_once_a_second(ask: Ask, dns: DnsServer) -> None:
    dns.set("a.example", [FOUR])
    asking = ask(A_EXAMPLE, queries_per_second=5)
    replies = [said(await asking("a.example")) for _ in range(20)]
    assert replies == ["NOERROR"] * 10 + ["REFUSED PROHIBITED rate_limited"] * 10
    assert asking.reasons.count("rate_limited") == 10
    assert [exchange.reason for exchange in asking.seen.exchanges] == [Reason.RATE_LIMITED]
    assert asking.seen.exchanges[0].authority == "a.example:53"
    assert said(await asking("a.example", client="192.0.2.8")) == "NOERROR", "others are not concerned"
    asking.clock.now += 1.0
    assert [said(await asking("a.example")) for _ in range(6)][4:] == ["NOERROR", "REFUSED PROHIBITED rate_limited"]
    assert len(asking.seen.exchanges) == 2


async def test_who_goes_on_asking_is_not_even_read(ask: Ask, dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one client that sends as fast as it can would take the gateway from all the others."""
    dns.set("a.example", [FOUR])
    asking = ask(A_EXAMPLE, queries_per_second=5)
    question = message.make_query("a.example", "A").to_wire()
    read: list[bytes] = []
    reads = module.message.read
    monkeypatch.setattr(module.message, "read", lambda data: read.append(data) or reads(data))
    replies = [await asking.server.answer(question, (CLIENT, 1), udp=True) for _ in range(100)]
    assert [reply is not None for reply in replies] == [True] * 20 + [False] * 80
    assert len(read) == 20
    shortly = await asking.server.answer(question, (CLIENT, 1), udp=False)
    assert (message.from_wire(shortly or b"").rcode(), len(shortly or b"")) == (rcode.REFUSED, 12)
    assert asking.reasons.count("rate_limited") == 91
    assert said(await asking("a.example", client="192.0.2.8")) == "NOERROR", "others are not concerned"


async def test_nonsense_is_counted_and_answered_as_long_as_there_is_not_too_much_of_it(ask: Ask) -> None:
    asking = ask(A_EXAMPLE, queries_per_second=5)
    nonsense = message.make_query("a.example", "A").to_wire() + b"x"
    replies = [await asking.server.answer(nonsense, (CLIENT, 1), udp=True) for _ in range(12)]
    assert [reply is None for reply in replies] == [False] * 10 + [True] * 2
    assert asking.reasons == ["malformed_request"] * 10 + ["rate_limited"] * 2
    assert [exchange.reason.value for exchange in asking.seen.exchanges] == ["malformed_request", "rate_limited"]
    assert await asking.server.answer(b"\0\1\x81\x80" + bytes(8), (CLIENT, 1), udp=True) is None
    assert len(asking.reasons) == 12, "a response is not even that"


async def test_a_client_that_waits_for_many_names_waits_for_no_more(ask: Ask, dns: DnsServer) -> None:
    asking = ask(WILD, limits=Limits(lookups_per_client=3))
    names = [f"n{number}.wild.example" for number in range(4)]
    for name in names:
        dns.set(name, [FOUR])
    with dns.held(*names[:3]):
        waiting = [asyncio.create_task(asking(name)) for name in names[:3]]
        await until(lambda: all(map(dns.asked, names[:3])), "the questions upstream")
        assert said(await asking(names[3])) == "SERVFAIL OTHER overloaded"
        assert said(await asking(names[3], client="192.0.2.8")) == "NOERROR"
    assert [said(reply) for reply in await asyncio.gather(*waiting)] == ["NOERROR"] * 3


async def test_more_questions_than_may_wait_are_not_kept(ask: Ask, dns: DnsServer) -> None:
    asking = ask(WILD, waiting=20)
    dns.set("slow.wild.example", [FOUR])
    with dns.held("slow.wild.example"):
        waiting = [asyncio.create_task(asking("slow.wild.example", client=f"192.0.2.{n}")) for n in range(30)]
        await until(lambda: sum(task.done() for task in waiting) == 10, "the refusals")
    replies = await asyncio.gather(*waiting)
    assert sorted(map(said, replies)) == ["NOERROR"] * 20 + ["SERVFAIL OTHER overloaded"] * 10
    assert said(await asking("slow.wild.example")) == "NOERROR", "there is room again"


async def test_ten_thousand_made_up_clients_cost_a_bounded_memory(asking: Asking) -> None:
    buckets = asking.gate.quotas.questions
    assert isinstance(buckets, Buckets)
    for number in range(12_000):
        buckets.take(f"198.51.{number // 250}.{number % 250}", 1.0, rate=1, burst=2)
    assert len(buckets) == 10_000


# --- when something changes, or fails ---


async def test_a_gateway_that_is_closed_asks_nobody(asking: Asking, dns: DnsServer) -> None:
    asking.gate.close("the gateway is shutting down")
    assert said(await asking("a.example")) == "SERVFAIL NOT_READY not_ready"
    assert said(await asking("denied.example")) == "SERVFAIL NOT_READY not_ready"
    assert dns.queries == []
    assert asking.seen.exchanges[0].detail == "the gateway is shutting down"


@pytest.mark.parametrize("kind", ["A", "HTTPS"])
@pytest.mark.parametrize(
    ("change", "says"),
    [("rules", "REFUSED BLOCKED no_rule"), ("closed", "SERVFAIL NOT_READY not_ready")],
)
async def test_what_changes_while_a_name_is_looked_up_counts(
    asking: Asking, dns: DnsServer, kind: str, change: str, says: str
) -> None:
    dns.record("a.example", "HTTPS", f"1 . ipv4hint={FOUR}")
    with dns.held("a.example"):
        waiting = asyncio.create_task(asking("a.example", kind))
        await until(lambda: dns.queries, "the question upstream")
        if change == "rules":
            asking.gate.use(RuleSet.empty())
        else:
            asking.gate.close("so be it")
    assert said(await waiting) == says
    assert asking.learned.told == []
    assert len(asking.reasons) == 1


BREAKS = ("message.read", "may_ask", "parse_host", "message.addresses", "message.write", "is_own")


@pytest.mark.parametrize("broken", BREAKS)
async def test_an_exception_is_servfail_counted_and_said(
    asking: Asking, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dns: DnsServer, broken: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    dns.set("a.example", ["93.184.216.34"])
    monkeypatch.setattr(module.__name__ + "." + broken, fail)
    query = message.make_query("a.example", "A")
    with caplog.at_level(logging.ERROR):
        data = await asking.server.answer(query.to_wire(), (CLIENT, 1), udp=True)
    assert data is not None
    reply = message.from_wire(data)
    assert (reply.id, reply.rcode()) == (query.id, rcode.SERVFAIL)
    assert set(asking.seen.errors) == {"dns"}
    assert "ZeroDivisionError" in caplog.text
    assert asking.learned.told == []
    assert "allowed" not in asking.reasons
    if broken != "message.write":
        assert asking.reasons == ["internal_error"]
        assert [exchange.reason for exchange in asking.seen.exchanges] == [Reason.INTERNAL_ERROR]


async def test_a_name_table_that_fails_keeps_the_answer_back(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(asking.learned, "learn", fail)
    reply = await asking("a.example")
    assert (said(reply), shown(reply)) == ("SERVFAIL OTHER internal_error", [])
    assert asking.reasons == ["internal_error"]


class Broken(Observer):
    """Breaks the one promise an observer makes."""

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        raise RuntimeError


async def test_an_observer_that_fails_lets_no_address_out(asking: Asking) -> None:
    asking.gate.observer = Broken()
    for name in ("a.example", "denied.example"):
        reply = await asking(name)
        assert (reply.rcode(), shown(reply)) == (rcode.SERVFAIL, [])


# --- connections ---


def test_each_client_has_so_many_connections(ask: Ask) -> None:
    server = ask(A_EXAMPLE, connections_per_client=2).server
    assert [server.admit("a"), server.admit("a"), server.admit("a"), server.admit("b")] == [True, True, False, True]
    for _ in range(3):
        server.leave("a")
    assert server.admit("a")
    server.leave("a")
    server.leave("b")
    assert len(server.gate.quotas.name_server_connections) == 0


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        (("192.0.2.1", 53), ("192.0.2.1", 53)),
        (("2001:db8::1", 53, 0, 0), ("2001:db8::1", 53)),
        (("::ffff:192.0.2.1", 53, 0, 0), ("192.0.2.1", 53)),
        (("fe80::1%lo", 53, 0, 1), ("fe80::1%lo", 53)),
    ],
)
def test_a_client_has_one_spelling(peer: tuple[str | int, ...], client: tuple[str, int]) -> None:
    assert client_of(peer) == client
