"""One full name on the wire: both families, the next server, aliases from message to message."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import dns.name
import dns.rdatatype
import pytest

from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.dns.chain import MAX_ALIASES, Found, Nothing
from egress_gateway.dns.lookup import RESOLUTION_DELAY, Addresses, Route, look_up, look_up_bindings

NAME = dns.name.from_text("a.example")
FOUR, SIX = "60 A 192.0.2.1", "90 AAAA 2001:db8::1"


async def look(*servers, patience: float = 0.2, attempts: int = 1) -> Addresses | Nothing:
    return await look_up(NAME, Route(tuple(server.endpoint for server in servers), patience, attempts))


async def failure(*servers, patience: float = 0.2, attempts: int = 1) -> ResolveError:
    with pytest.raises(ResolveError) as caught:
        await look(*servers, patience=patience, attempts=attempts)
    return caught.value


def shown(outcome: Addresses | Nothing) -> list[str]:
    assert isinstance(outcome, Addresses)
    return [str(address) for address in outcome.addresses]


async def test_both_families_are_asked_and_the_least_ttl_counts(server) -> None:
    server.exists("a.example", FOUR, SIX)
    outcome = await look(server)
    assert shown(outcome) == ["2001:db8::1", "192.0.2.1"]
    assert isinstance(outcome, Addresses)
    assert (outcome.ttl, outcome.complete) == (60, True)
    assert sorted(server.queries) == [("a.example", "A", "udp"), ("a.example", "AAAA", "udp")]


async def test_both_families_are_asked_at_the_same_time(server) -> None:
    server.exists("a.example", FOUR, SIX)
    for rdtype in ("A", "AAAA"):
        server.delay("a.example", rdtype, 0.15)
    started = asyncio.get_running_loop().time()
    await look(server, patience=1.0)
    assert asyncio.get_running_loop().time() - started < 0.28


async def test_a_name_with_one_family_is_complete_when_the_other_said_so(server) -> None:
    server.exists("a.example", FOUR)
    outcome = await look(server)
    assert shown(outcome) == ["192.0.2.1"]
    assert isinstance(outcome, Addresses)
    assert outcome.complete


@pytest.mark.parametrize(("found", "silent"), [(FOUR, "AAAA"), (SIX, "A")])
async def test_one_family_silent_and_the_other_will_do_soon(server, found: str, silent: str) -> None:
    server.exists("a.example", found)
    server.silent("a.example", silent)
    started = asyncio.get_running_loop().time()
    outcome = await look(server, patience=2.0)
    assert RESOLUTION_DELAY <= asyncio.get_running_loop().time() - started < RESOLUTION_DELAY + 0.3
    assert shown(outcome) == [found.split()[2]]
    assert isinstance(outcome, Addresses)
    assert not outcome.complete


async def test_a_family_that_is_a_little_late_is_waited_for(server) -> None:
    server.exists("a.example", FOUR, SIX)
    server.delay("a.example", "AAAA", RESOLUTION_DELAY / 2)
    assert shown(await look(server, patience=1.0)) == ["2001:db8::1", "192.0.2.1"]


async def test_no_data_of_one_family_waits_for_the_other_as_long_as_it_takes(server) -> None:
    server.exists("a.example", FOUR)
    server.delay("a.example", "A", RESOLUTION_DELAY + 0.1)
    assert shown(await look(server, patience=1.0)) == ["192.0.2.1"]


async def test_one_family_refused_and_the_other_will_do(server) -> None:
    server.exists("a.example", FOUR)
    server.say("a.example", "AAAA", rcode="REFUSED")
    outcome = await look(server)
    assert shown(outcome) == ["192.0.2.1"]
    assert isinstance(outcome, Addresses)
    assert not outcome.complete


@pytest.mark.parametrize(
    ("four", "six", "expected"),
    [
        pytest.param(("NXDOMAIN", 60), ("NXDOMAIN", 40), Nothing(ResolveFailure.NXDOMAIN, 40),
                     id="no such name, for the lesser time"),
        pytest.param(("NOERROR", 30), ("NOERROR", 40), Nothing(ResolveFailure.NO_DATA, 30), id="no data"),
        pytest.param(("NXDOMAIN", 30), ("NOERROR", 40), Nothing(ResolveFailure.NO_DATA, 30),
                     id="a server that denies the name for one family only: it exists"),
        pytest.param(("NOERROR", None), ("NOERROR", 40), Nothing(ResolveFailure.NO_DATA, 0),
                     id="not remembered when one family did not say for how long"),
    ],
)  # fmt: skip
async def test_nothing_in_either_family(
    server, four: tuple[str, int | None], six: tuple[str, int | None], expected: Nothing
) -> None:
    for rdtype, (rcode, soa) in (("A", four), ("AAAA", six)):
        server.say("a.example", rdtype, rcode=rcode, soa=soa)
    assert await look(server) == expected


@pytest.mark.parametrize("nothing", ["NOERROR", "NXDOMAIN"])
async def test_nothing_in_one_family_and_silence_in_the_other_is_a_failure_and_not_nothing(
    server, nothing: str
) -> None:
    server.say("a.example", "A", rcode=nothing, soa=60)
    server.silent("a.example", "AAAA")
    assert (await failure(server)).kind is ResolveFailure.TIMEOUT


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR"])
async def test_the_next_server_is_asked_when_one_fails(server, second_server, rcode: str) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, rcode=rcode)
    second_server.exists("a.example", FOUR, SIX)
    outcome = await look(server, second_server)
    assert shown(outcome) == ["2001:db8::1", "192.0.2.1"]
    assert isinstance(outcome, Addresses)
    assert outcome.complete


async def test_the_next_server_is_asked_when_one_talks_nonsense(server, second_server) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, "60 CNAME a.example.")
    second_server.exists("a.example", FOUR)
    assert shown(await look(server, second_server)) == ["192.0.2.1"]


async def test_the_next_server_is_asked_when_one_is_silent(server, second_server) -> None:
    server.silent("a.example")
    second_server.exists("a.example", FOUR)
    started = asyncio.get_running_loop().time()
    assert shown(await look(server, second_server, patience=0.1, attempts=2)) == ["192.0.2.1"]
    assert 0.09 < asyncio.get_running_loop().time() - started < 0.25


async def test_no_such_name_is_an_answer_and_the_next_server_is_not_asked(server, second_server) -> None:
    assert isinstance(await look(server, second_server), Nothing)
    assert second_server.queries == []


async def test_silent_servers_are_asked_again_in_turn_and_others_are_not(server, second_server) -> None:
    server.silent("a.example")
    for rdtype in ("A", "AAAA"):
        second_server.say("a.example", rdtype, rcode="SERVFAIL")
    started = asyncio.get_running_loop().time()
    error = await failure(server, second_server, patience=0.1, attempts=3)
    assert error.kind is ResolveFailure.SERVFAIL, "what a server said tells more than silence"
    assert 0.29 < asyncio.get_running_loop().time() - started < 0.6
    assert (server.count(rdtype="A"), second_server.count(rdtype="A")) == (3, 1)


async def test_an_alias_that_ends_outside_the_message_is_asked_for(server) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, "20 CNAME b.example.")
    server.exists("b.example", FOUR, SIX)
    outcome = await look(server)
    assert shown(outcome) == ["2001:db8::1", "192.0.2.1"]
    assert isinstance(outcome, Addresses)
    assert outcome.ttl == 20
    assert server.count("b.example") == 2


async def test_the_aliases_are_told_over_all_messages(server) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, "20 CNAME b.example.")
        server.say("b.example", rdtype, "20 CNAME c.example.", f"c.example. {FOUR if rdtype == 'A' else SIX}")
    outcome = await look(server)
    assert isinstance(outcome, Addresses)
    assert [alias.to_text() for alias in outcome.aliases] == ["b.example.", "c.example."]


async def test_aliases_that_differ_between_the_families_are_not_told(server) -> None:
    server.say("a.example", "A", "20 CNAME b.example.", f"b.example. {FOUR}")
    server.say("a.example", "AAAA", "20 CNAME c.example.", f"c.example. {SIX}")
    outcome = await look(server)
    assert isinstance(outcome, Addresses)
    assert (shown(outcome), outcome.aliases) == (["2001:db8::1", "192.0.2.1"], ())


async def test_aliases_of_the_only_family_are_the_names(server) -> None:
    server.say("a.example", "A", "20 CNAME b.example.", f"b.example. {FOUR}")
    server.say("a.example", "AAAA", "20 CNAME b.example.", soa=60)
    outcome = await look(server)
    assert isinstance(outcome, Addresses)
    assert [alias.to_text() for alias in outcome.aliases] == ["b.example."]


async def bindings(*servers) -> Found | Nothing:
    route = Route(tuple(server.endpoint for server in servers), 0.2, 1)
    return await look_up_bindings(NAME, dns.rdatatype.HTTPS, route)


async def test_bindings_are_asked_for_as_addresses_are(server, second_server) -> None:
    for name in ("a.example", "b.example"):
        server.say(name, "HTTPS", rcode="SERVFAIL")
    second_server.say("a.example", "HTTPS", "20 CNAME b.example.")
    second_server.say("b.example", "HTTPS", "60 HTTPS 1 . alpn=h2")
    outcome = await bindings(server, second_server)
    assert isinstance(outcome, Found)
    assert (outcome.ttl, [record.priority for record in outcome.bindings]) == (20, [1])
    assert [alias.to_text() for alias in outcome.aliases] == ["b.example."]


async def test_no_bindings_are_nothing_and_a_failure_is_a_failure(server) -> None:
    server.say("a.example", "HTTPS", soa=30)
    assert await bindings(server) == Nothing(ResolveFailure.NO_DATA, 30)
    server.say("a.example", "HTTPS", rcode="REFUSED")
    with pytest.raises(ResolveError) as caught:
        await bindings(server)
    assert caught.value.kind is ResolveFailure.REFUSED


async def test_aliases_in_a_circle_over_several_messages_are_malformed(server) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, "20 CNAME b.example.")
        server.say("b.example", rdtype, "20 CNAME a.example.")
    error = await failure(server)
    assert error.kind is ResolveFailure.MALFORMED
    assert server.count() == 4


async def test_aliases_without_end_are_malformed_after_so_many(server) -> None:
    names = ["a.example", *(f"n{number}.example" for number in range(40))]
    for name, target in pairwise(names):
        for rdtype in ("A", "AAAA"):
            server.say(name, rdtype, f"20 CNAME {target}.")
    assert (await failure(server)).kind is ResolveFailure.MALFORMED
    assert server.count(rdtype="A") == MAX_ALIASES + 1


async def test_a_parser_that_fails_is_a_resolve_error(server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    server.exists("a.example", FOUR)
    monkeypatch.setattr("egress_gateway.dns.chain.read", fail)
    error = await failure(server)
    assert error.kind is ResolveFailure.MALFORMED
    assert "ZeroDivisionError" in str(error)


async def test_giving_up_ends_both_questions(server) -> None:
    server.silent("a.example")
    before = asyncio.all_tasks()
    task = asyncio.create_task(look(server, patience=5.0))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before


async def test_more_addresses_than_anyone_needs_are_cut(server, reply: Callable) -> None:
    records = [f"60 A 192.0.2.{number}" for number in range(200)]
    server.exists("a.example", *records)
    assert len(shown(await look(server))) == 64
