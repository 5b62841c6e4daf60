"""The resolver as the gateway uses it, against real servers on loopback, with a clock that a test turns."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from egress_gateway.dns.resolv_conf import ResolvConf
from egress_gateway.dns.resolver import (
    HOSTS_TTL,
    INCOMPLETE_TTL,
    Answer,
    ResolveError,
    ResolveFailure,
    Resolver,
    ResolverSettings,
    candidates,
)

FOUR, SIX = "60 A 192.0.2.1", "90 AAAA 2001:db8::1"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    """The labels that the observer was told."""
    return []


type Make = Callable[..., Resolver]


@pytest_asyncio.fixture
async def make(server, clock: Clock, told: list[str]) -> AsyncIterator[Make]:
    resolvers: list[Resolver] = []

    def build(**changes: Any) -> Resolver:
        fast: dict[str, Any] = {
            "servers": (server.endpoint,),
            "timeout": 0.2,
            "attempts": 1,
            "total_timeout": 2.0,
        } | changes
        settings = ResolverSettings(**fast)
        resolvers.append(Resolver(settings, clock=clock, on_lookup=lambda label, _: told.append(label)))
        return resolvers[-1]

    yield build
    for resolver in resolvers:
        await resolver.close()


@pytest.fixture
def files(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Settings that read files of ours, whose name server (a file states no port) is the scripted one."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (tmp_path / "hosts").write_text("")
    monkeypatch.setattr("egress_gateway.dns.resolv_conf.DNS_PORT", server.endpoint[1])
    return {"servers": (), "resolv_conf": tmp_path / "resolv.conf", "hosts": tmp_path / "hosts"}


def shown(answer: Answer) -> list[str]:
    return [str(address) for address in answer.addresses]


async def refusal(resolver: Resolver, host: str) -> ResolveError:
    with pytest.raises(ResolveError) as caught:
        await resolver.resolve(host)
    assert str(caught.value).isprintable()
    return caught.value


async def test_an_answer_has_both_families_in_turn_its_end_and_its_name(server, make: Make) -> None:
    server.exists("a.example", FOUR, SIX, "60 A 192.0.2.2")
    answer = await make().resolve("a.example")
    assert shown(answer) == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]
    assert (answer.expires_at, answer.name) == (1060.0, "a.example")


async def test_an_answer_tells_the_aliases_and_whether_a_family_is_missing(server, make: Make) -> None:
    for rdtype, value in (("A", "192.0.2.1"), ("AAAA", "2001:db8::1")):
        server.say("a.example", rdtype, "60 CNAME B.example.", f"B.example. 60 {rdtype} {value}")
    server.exists("half.example", FOUR)
    server.silent("half.example", "AAAA")
    resolver = make()
    answer = await resolver.resolve("a.example")
    assert (answer.aliases, answer.complete) == (("b.example",), True)
    answer = await resolver.resolve("half.example")
    assert (answer.aliases, answer.complete) == ((), False)


# Service bindings.


async def test_bindings_are_remembered_for_their_ttl_and_asked_for_once(server, make: Make, clock: Clock) -> None:
    server.say("a.example", "HTTPS", "60 CNAME b.example.", "b.example. 90 HTTPS 1 . alpn=h2")
    resolver = make()
    both = await asyncio.gather(*(resolver.bindings("a.example", "HTTPS") for _ in range(20)))
    assert all(found is both[0] for found in both)
    assert (both[0].expires_at, both[0].name, both[0].owner) == (1060.0, "a.example", "b.example")
    assert [record.priority for record in both[0].records] == [1]
    clock.now += 59.9
    await resolver.bindings("a.example", "HTTPS")
    assert server.count() == 1
    clock.now += 0.1
    await resolver.bindings("a.example", "HTTPS")
    assert server.count() == 2


async def test_kinds_of_bindings_and_addresses_are_remembered_apart(server, make: Make) -> None:
    server.exists("a.example", FOUR)
    server.say("a.example", "HTTPS", "60 HTTPS 1 .")
    server.say("a.example", "SVCB", "60 SVCB 2 .")
    resolver = make()
    for _ in range(2):
        assert [record.priority for record in (await resolver.bindings("a.example", "HTTPS")).records] == [1]
        assert [record.priority for record in (await resolver.bindings("a.example", "SVCB")).records] == [2]
        assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    assert server.count() == 4, "HTTPS, SVCB, A and AAAA, each once"


@pytest.mark.parametrize(
    ("rcode", "kind"), [("NXDOMAIN", ResolveFailure.NXDOMAIN), ("NOERROR", ResolveFailure.NO_DATA)]
)
async def test_that_there_are_no_bindings_is_remembered(server, make: Make, rcode: str, kind: ResolveFailure) -> None:
    server.say("a.example", "HTTPS", rcode=rcode, soa=20)
    resolver = make()
    for _ in range(2):
        with pytest.raises(ResolveError) as caught:
            await resolver.bindings("a.example", "HTTPS")
        assert caught.value.kind is kind
    assert server.count() == 1


async def test_what_is_pinned_here_has_no_bindings_and_nobody_is_asked(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("192.0.2.7 a.example\n")
    resolver = make(**files)
    for host in ("a.example", "localhost", "192.0.2.1"):
        with pytest.raises(ResolveError) as caught:
            await resolver.bindings(host, "HTTPS")
        assert caught.value.kind is ResolveFailure.NO_DATA
    assert server.queries == []


async def test_bindings_are_those_of_the_name_whose_addresses_are_used(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\noptions ndots:3\n")
    server.exists("db.prod.a.test", FOUR)
    server.say("db.prod", "HTTPS", "60 HTTPS 1 . ipv4hint=192.0.2.66")
    server.say("db.prod.a.test", "HTTPS", soa=60)
    with pytest.raises(ResolveError) as caught:
        await make(**files).bindings("db.prod", "HTTPS")
    assert caught.value.kind is ResolveFailure.NO_DATA
    assert server.asked("HTTPS") == ["db.prod.a.test"]


async def test_bindings_cost_no_more_memory_than_so_many_names(server, make: Make) -> None:
    resolver = make(cache_size=20)
    for number in range(4):
        server.say(f"n{number}.example", "HTTPS", "60 HTTPS 1 .")
        await resolver.bindings(f"n{number}.example", "HTTPS")
    asked = server.count()
    await resolver.bindings("n3.example", "HTTPS")
    await resolver.bindings("n0.example", "HTTPS")
    assert server.count() == asked + 1


# What needs no server.


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("192.0.2.1", ["192.0.2.1"], id="an IPv4 address is itself"),
        pytest.param("2001:db8::1", ["2001:db8::1"], id="an IPv6 address is itself"),
        pytest.param("::ffff:127.0.0.1", ["::ffff:127.0.0.1"], id="a mapped address is not unwrapped here"),
        pytest.param("localhost", ["::1", "127.0.0.1"], id="localhost is loopback"),
        pytest.param("db.localhost", ["::1", "127.0.0.1"], id="a name under localhost is loopback"),
    ],
)
async def test_known_without_asking(server, make: Make, host: str, expected: list[str]) -> None:
    answer = await make().resolve(host)
    assert list(answer.addresses) == [ip_address(text) for text in expected]
    assert answer.expires_at > 1000.0
    assert server.queries == []


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("", id="nothing"),
        pytest.param("a..example", id="an empty label"),
        pytest.param("a.example.", id="a trailing dot, which a canonical host does not have"),
        pytest.param("A.example", id="upper case, which a canonical host does not have"),
        pytest.param("a" * 64 + ".example", id="a label too long"),
        pytest.param(".".join(["a" * 63] * 4), id="a name too long"),
        pytest.param("a b.example", id="a space"),
        pytest.param("a\n.example", id="a newline"),
        pytest.param("a.example\n", id="a newline at the end"),
        pytest.param("a\\.example", id="a backslash, which DNS text gives a meaning"),
        pytest.param("é.example", id="not ASCII"),
        pytest.param("2130706433", id="an address as one number"),
        pytest.param("127.1", id="an address that lacks parts"),
        pytest.param("0177.0.0.1", id="an address in octal"),
        pytest.param("0x7f000001", id="an address in hexadecimal"),
        pytest.param("127.0.0.0x1", id="an address with a hexadecimal part"),
        pytest.param("fe80::1%eth0", id="an address with a zone"),
        pytest.param("[::1]", id="an address in brackets"),
    ],
)
async def test_what_is_no_host_is_malformed_and_nobody_is_asked(server, make: Make, host: str) -> None:
    assert (await refusal(make(), host)).kind is ResolveFailure.MALFORMED
    assert server.queries == []


@pytest.mark.parametrize("place", ["look_up", "_literal"])
async def test_a_failure_of_our_own_code_is_a_resolve_error_too(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(f"egress_gateway.dns.resolver.{place}", fail)
    error = await refusal(make(), "a.example")
    assert error.kind is ResolveFailure.MALFORMED
    assert "ZeroDivisionError" in str(error)
    assert "in an unforeseen way" in caplog.text, "the operator is told, with the traceback"


# Memory.


async def test_an_answer_is_remembered_for_its_ttl_and_no_longer(server, make: Make, clock: Clock) -> None:
    server.exists("a.example", FOUR, SIX)
    resolver = make()
    first = await resolver.resolve("a.example")
    clock.now += 59.9
    assert await resolver.resolve("a.example") is first
    assert server.count() == 2
    clock.now += 0.1
    assert (await resolver.resolve("a.example")).expires_at == 1120.0
    assert server.count() == 4


async def test_a_ttl_of_zero_is_not_remembered(server, make: Make) -> None:
    server.exists("a.example", "0 A 192.0.2.1")
    resolver = make()
    for _ in range(3):
        assert (await resolver.resolve("a.example")).expires_at == 1000.0
    assert server.count(rdtype="A") == 3


async def test_an_operator_may_set_the_least_and_the_longest_time(server, make: Make) -> None:
    server.exists("short.example", "0 A 192.0.2.1")
    server.exists("long.example", "100000 A 192.0.2.1")
    resolver = make(min_ttl=5.0, max_ttl=600.0)
    assert (await resolver.resolve("short.example")).expires_at == 1005.0
    assert (await resolver.resolve("long.example")).expires_at == 1600.0


@pytest.mark.parametrize(
    ("rcode", "kind"), [("NXDOMAIN", ResolveFailure.NXDOMAIN), ("NOERROR", ResolveFailure.NO_DATA)]
)
async def test_nothing_is_remembered_for_as_long_as_the_zone_says(
    server, make: Make, clock: Clock, rcode: str, kind: ResolveFailure
) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, rcode=rcode, soa=20)
    resolver = make()
    assert (await refusal(resolver, "a.example")).kind is kind
    clock.now += 19.9
    assert (await refusal(resolver, "a.example")).kind is kind
    assert server.count() == 2
    clock.now += 0.1
    await refusal(resolver, "a.example")
    assert server.count() == 4


async def test_nothing_is_remembered_no_longer_than_the_operator_allows(server, make: Make, clock: Clock) -> None:
    resolver = make(negative_ttl_max=10.0)
    await refusal(resolver, "none.example")
    clock.now += 10.0
    await refusal(resolver, "none.example")
    assert server.count() == 4


async def test_a_failure_of_the_servers_is_not_remembered(server, make: Make) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, rcode="SERVFAIL")
    resolver = make()
    assert (await refusal(resolver, "a.example")).kind is ResolveFailure.SERVFAIL
    server.exists("a.example", FOUR)
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]


async def test_an_answer_that_lacks_a_family_is_remembered_briefly(server, make: Make, clock: Clock) -> None:
    server.exists("a.example", FOUR)
    server.silent("a.example", "AAAA")
    resolver = make()
    assert (await resolver.resolve("a.example")).expires_at == 1000.0 + INCOMPLETE_TTL
    server.exists("a.example", FOUR, SIX)
    clock.now += INCOMPLETE_TTL
    assert shown(await resolver.resolve("a.example")) == ["2001:db8::1", "192.0.2.1"]


async def test_memory_is_bounded_and_names_that_do_not_exist_push_none_out(server, make: Make) -> None:
    resolver = make(cache_size=3)
    for number in range(5):
        server.exists(f"n{number}.example", FOUR)
        await resolver.resolve(f"n{number}.example")
    for number in range(20):
        await refusal(resolver, f"none{number}.example")
    asked = server.count()
    for number in (2, 3, 4):
        await resolver.resolve(f"n{number}.example")
    assert server.count() == asked, "the last three are remembered"
    await resolver.resolve("n1.example")
    assert server.count() == asked + 2, "those before are not"


# Many callers.


async def test_a_hundred_callers_at_once_cost_two_questions(server, make: Make) -> None:
    server.exists("a.example", "0 A 192.0.2.1", "0 AAAA 2001:db8::1")
    resolver = make()
    answers = await asyncio.gather(*(resolver.resolve("a.example") for _ in range(100)))
    assert server.count() == 2
    assert all(answer is answers[0] for answer in answers)


async def test_a_hundred_callers_get_an_error_of_their_own(server, make: Make) -> None:
    resolver = make()
    errors = await asyncio.gather(*(resolver.resolve("none.example") for _ in range(100)), return_exceptions=True)
    assert server.count() == 2
    assert len({id(error) for error in errors}) == 100
    assert all(isinstance(error, ResolveError) for error in errors)


async def test_a_caller_that_gives_up_does_not_end_it_for_the_others(server, make: Make) -> None:
    server.exists("a.example", FOUR)
    for rdtype in ("A", "AAAA"):
        server.delay("a.example", rdtype, 0.1)
    resolver = make()
    callers = [asyncio.create_task(resolver.resolve("a.example")) for _ in range(3)]
    await asyncio.sleep(0.03)
    callers[0].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [shown(result) for result in results[1:] if isinstance(result, Answer)] == [["192.0.2.1"]] * 2


async def test_when_all_callers_give_up_the_answer_is_remembered_for_the_next(server, make: Make) -> None:
    server.exists("a.example", FOUR)
    for rdtype in ("A", "AAAA"):
        server.delay("a.example", rdtype, 0.05)
    resolver = make()
    caller = asyncio.create_task(resolver.resolve("a.example"))
    await asyncio.sleep(0.02)
    caller.cancel()
    await asyncio.sleep(0.1)
    await resolver.resolve("a.example")
    assert server.count() == 2


async def test_more_lookups_than_allowed_are_refused_at_once(server, make: Make, told: list[str]) -> None:
    resolver = make(max_inflight=2, timeout=0.15)
    for number in range(3):
        server.silent(f"n{number}.example")
    waiting = [asyncio.create_task(resolver.resolve(f"n{number}.example")) for number in range(2)]
    await asyncio.sleep(0.01)
    error = await refusal(resolver, "n2.example")
    assert error.kind is ResolveFailure.OVERLOADED
    assert told == ["overloaded"]
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await refusal(resolver, "n2.example")).kind is ResolveFailure.TIMEOUT, "there is room again"


async def test_with_tasks_that_start_eagerly_nothing_changes(server, make: Make) -> None:
    """mitmproxy runs with asyncio's eager task factory."""
    server.exists("a.example", "0 A 192.0.2.1")
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        resolver = make()
        for round_number in range(1, 4):
            await asyncio.gather(*(resolver.resolve("a.example") for _ in range(10)))
            assert server.count() == 2 * round_number
    finally:
        loop.set_task_factory(None)


# Servers that fail.


async def test_the_next_server_answers_when_the_first_fails(server, second_server, make: Make) -> None:
    for rdtype in ("A", "AAAA"):
        server.say("a.example", rdtype, rcode="SERVFAIL")
    second_server.exists("a.example", FOUR)
    resolver = make(servers=(server.endpoint, second_server.endpoint))
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]


async def test_all_servers_silent_is_a_timeout_in_bounded_time(server, second_server, make: Make) -> None:
    for silent in (server, second_server):
        silent.silent("a.example")
    resolver = make(servers=(server.endpoint, second_server.endpoint), timeout=0.1, attempts=2)
    started = asyncio.get_running_loop().time()
    error = await refusal(resolver, "a.example")
    assert error.kind is ResolveFailure.TIMEOUT
    assert 0.39 < asyncio.get_running_loop().time() - started < 0.7


async def test_the_whole_lookup_is_bounded_whatever_the_servers_and_attempts(server, make: Make) -> None:
    server.silent("a.example")
    resolver = make(timeout=5.0, attempts=5, total_timeout=0.2)
    started = asyncio.get_running_loop().time()
    error = await refusal(resolver, "a.example")
    assert error.kind is ResolveFailure.TIMEOUT
    assert "0.2 s in all" in str(error)
    assert asyncio.get_running_loop().time() - started < 0.5


async def test_a_server_that_stops_answering_fails_fast_and_is_back_at_once(
    server, make: Make, told: list[str], clock: Clock
) -> None:
    """What is known goes on meanwhile."""
    server.exists("known.example", FOUR)
    server.exists("a.example", FOUR)
    resolver = make(timeout=0.3, attempts=2)
    await resolver.resolve("known.example")
    clock.now += 1.0
    server.mute = True
    started = asyncio.get_running_loop().time()
    assert (await refusal(resolver, "a.example")).kind is ResolveFailure.TIMEOUT
    assert asyncio.get_running_loop().time() - started < 0.5, "one time-out, and no second attempt"
    asked = server.count()
    started = asyncio.get_running_loop().time()
    results = await asyncio.gather(
        *(resolver.resolve(f"n{number}.example") for number in range(100)), return_exceptions=True
    )
    assert asyncio.get_running_loop().time() - started < 0.6
    assert {result.kind for result in results if isinstance(result, ResolveError)} == {ResolveFailure.TIMEOUT}
    assert server.count() <= asked + 2, "one of them checked"
    assert shown(await resolver.resolve("known.example")) == ["192.0.2.1"]
    server.mute = False
    await asyncio.sleep(0.8)  # the check that began in the silence is over
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    assert told[-1] == "success"


async def test_each_server_has_its_turn_before_the_time_is_over(server, second_server, make: Make) -> None:
    server.mute = True
    second_server.exists("a.example", FOUR)
    resolver = make(servers=(server.endpoint, second_server.endpoint), timeout=2.0, total_timeout=0.6)
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    started = asyncio.get_running_loop().time()
    second_server.exists("b.example", FOUR)
    await resolver.resolve("b.example")
    assert asyncio.get_running_loop().time() - started < 0.15, "the silent one is not asked first again"


async def test_garbage_is_malformed(server, make: Make, reply: Callable) -> None:
    for rdtype in ("A", "AAAA"):
        server.script("a.example", rdtype, lambda query, _: [reply(query, FOUR).to_wire()[:-3]])
    assert (await refusal(make(), "a.example")).kind is ResolveFailure.MALFORMED


async def test_a_rebinding_answer_is_one_answer_until_it_expires(server, make: Make, clock: Clock) -> None:
    """Who was judged by the first answer is never given the second one before the first has expired."""
    server.exists("a.example", "10 A 198.51.100.1")
    resolver = make()
    judged = await resolver.resolve("a.example")
    server.exists("a.example", "10 A 127.0.0.1")
    assert (await resolver.resolve("a.example")).addresses == judged.addresses
    clock.now += 10.0
    assert shown(await resolver.resolve("a.example")) == ["127.0.0.1"]


# The system's files.


@pytest.mark.parametrize(
    ("host", "conf", "expected"),
    [
        pytest.param("db", ResolvConf(search=("a.test", "b.test")), ["db.a.test", "db.b.test", "db"],
                     id="a single label goes through the list first"),
        pytest.param("db.prod", ResolvConf(search=("a.test",)), ["db.prod", "db.prod.a.test"],
                     id="with ndots:1 a name with a dot is first asked as it is"),
        pytest.param("db.prod", ResolvConf(search=("a.test",), ndots=2), ["db.prod.a.test", "db.prod"],
                     id="with ndots:2 it is not"),
        pytest.param("db", ResolvConf(search=("a.test",), ndots=0), ["db", "db.a.test"],
                     id="with ndots:0 nothing is"),
        pytest.param("db", ResolvConf(), ["db"], id="without a list there is one name"),
    ],
)  # fmt: skip
def test_order_of_names(host: str, conf: ResolvConf, expected: list[str]) -> None:
    assert list(candidates(host, conf)) == expected


async def test_the_search_list_is_followed_until_there_is_an_address(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test b.test c.test\n")
    server.exists("db.b.test", FOUR)
    answer = await make(**files).resolve("db")
    assert (shown(answer), answer.name) == (["192.0.2.1"], "db.b.test")
    assert server.asked() == ["db.a.test", "db.b.test"]


async def test_ndots_of_the_file_counts(server, make: Make, files: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch cluster.test\noptions ndots:5\n")
    server.exists("api.example.com", FOUR)
    answer = await make(**files).resolve("api.example.com")
    assert answer.name == "api.example.com"
    assert server.asked() == ["api.example.com.cluster.test", "api.example.com"]


async def test_a_server_that_fails_for_one_name_ends_the_search(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    """Else whoever can make one lookup fail chooses which name's address is dialled."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\n")
    for rdtype in ("A", "AAAA"):
        server.say("db.prod", rdtype, rcode="SERVFAIL")
    server.exists("db.prod.a.test", FOUR)
    assert (await refusal(make(**files), "db.prod")).kind is ResolveFailure.SERVFAIL
    assert server.asked() == ["db.prod"]


@pytest.mark.parametrize("no_data_at", ["db.a.test", "db"])
async def test_no_data_anywhere_on_the_list_is_no_data(
    server, make: Make, files: dict[str, object], tmp_path: Path, no_data_at: str
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\n")
    server.exists(no_data_at)
    assert (await refusal(make(**files), "db")).kind is ResolveFailure.NO_DATA


async def test_a_search_domain_that_makes_the_name_too_long_is_passed_over(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\noptions ndots:15\n")
    host = ".".join(["a" * 61] * 4)
    server.exists(host, FOUR)
    assert (await make(**files).resolve(host)).name == host


async def test_servers_that_were_given_exclude_the_files(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.9\nsearch a.test\n")
    (tmp_path / "hosts").write_text("192.0.2.9 a.example\n")
    server.exists("a.example", FOUR)
    resolver = make(**files | {"servers": (server.endpoint,)})
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    await refusal(resolver, "db")
    assert server.asked() == ["a.example", "db"]


async def test_timeout_and_attempts_of_the_file_count(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:3\n")
    server.silent("a.example")
    started = asyncio.get_running_loop().time()
    assert (await refusal(make(**files, total_timeout=1.2), "a.example")).kind is ResolveFailure.TIMEOUT
    assert 1.15 < asyncio.get_running_loop().time() - started < 1.6
    assert server.count(rdtype="A") == 2, "the second attempt began after one second"


async def test_the_hosts_file_answers_alone_and_briefly(
    server, make: Make, files: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "hosts").write_text("192.0.2.7 db.example db\n")
    answer = await make(**files).resolve("db")
    assert (shown(answer), answer.expires_at) == (["192.0.2.7"], 1000.0 + HOSTS_TTL)
    assert server.queries == []


async def test_localhost_is_not_what_the_hosts_file_says(make: Make, files: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("192.0.2.7 localhost\n")
    assert shown(await make(**files).resolve("localhost")) == ["::1", "127.0.0.1"]


async def test_a_change_of_the_hosts_file_counts_before_what_is_remembered(
    server, make: Make, files: dict[str, object], tmp_path: Path, clock: Clock
) -> None:
    server.exists("a.example", FOUR)
    resolver = make(**files)
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    (tmp_path / "hosts").write_text("192.0.2.7 a.example\n")
    clock.now += 1.0
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.7"]
    (tmp_path / "hosts").write_text("")
    clock.now += 1.0
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]


async def test_a_change_of_resolv_conf_empties_the_memory(
    server, make: Make, files: dict[str, object], tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\n")
    server.exists("db.a.test", FOUR)
    server.exists("db.b.test", "60 A 192.0.2.2")
    resolver = make(**files)
    assert (await resolver.resolve("db")).name == "db.a.test"
    assert (await refusal(resolver, "cache")).kind is ResolveFailure.NXDOMAIN
    server.exists("cache.b.test", FOUR)
    # Of another size, here and below, since two writes may have one and the same time.
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch b.test\n\n")
    clock.now += 1.0
    assert (await resolver.resolve("db")).name == "db.b.test"
    assert (await resolver.resolve("cache")).name == "cache.b.test"


async def test_what_an_old_resolv_conf_led_to_is_not_remembered_under_the_new_one(
    server, make: Make, files: dict[str, object], tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch a.test\n")
    server.exists("db.a.test", FOUR)
    server.exists("db.b.test", "60 A 192.0.2.2")
    for rdtype in ("A", "AAAA"):
        server.delay("db.a.test", rdtype, 0.05)
    resolver = make(**files)
    slow = asyncio.create_task(resolver.resolve("db"))
    await asyncio.sleep(0.01)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch b.test\n\n")
    clock.now += 1.0
    await resolver.resolve("localhost")  # any question looks at the files
    assert (await slow).name == "db.a.test"
    assert (await resolver.resolve("db")).name == "db.b.test"


# Who watches, and the end.


async def test_each_result_is_told_under_its_label(server, make: Make, told: list[str]) -> None:
    server.exists("a.example", FOUR)
    server.silent("silent.example")
    resolver = make()
    await resolver.resolve("a.example")
    await resolver.resolve("a.example")
    for host in ("none.example", "none.example", "silent.example", "not a host"):
        await refusal(resolver, host)
    assert told == ["success", "cached", "nxdomain", "nxdomain", "timeout", "malformed"]


async def test_an_observer_that_fails_changes_nothing(server, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    def fail(label: str, seconds: float) -> None:
        raise RuntimeError("observer")

    server.exists("a.example", FOUR)
    resolver = Resolver(ResolverSettings(servers=(server.endpoint,)), clock=clock, on_lookup=fail)
    assert shown(await resolver.resolve("a.example")) == ["192.0.2.1"]
    assert "telling about a lookup failed" in caplog.text


async def test_closing_tells_those_who_wait_and_nothing_is_asked_afterwards(server, make: Make) -> None:
    server.silent("a.example")
    resolver = make(timeout=5.0, total_timeout=10.0)
    waiting = asyncio.create_task(resolver.resolve("a.example"))
    await asyncio.sleep(0.05)
    await resolver.close()
    with pytest.raises(ResolveError) as caught:
        await asyncio.wait_for(waiting, 1.0)
    assert caught.value.kind is ResolveFailure.OVERLOADED
    asked = server.count()
    assert "closed" in str(await refusal(resolver, "b.example"))
    assert server.count() == asked


async def test_a_hundred_failed_lookups_leave_no_socket_and_no_complaint(server, make: Make) -> None:
    """Warnings are errors: a task or a future whose exception nobody read would fail this."""
    resolver = make(timeout=0.05)
    for number in range(100):
        server.silent(f"n{number}.example")
    results = await asyncio.gather(
        *(resolver.resolve(f"n{number}.example") for number in range(100)), return_exceptions=True
    )
    assert all(isinstance(result, ResolveError) for result in results)
    await asyncio.sleep(0.01)
    assert server.sockets_to_it() == 0
    gc.collect()
