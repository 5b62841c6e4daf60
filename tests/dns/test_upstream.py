"""The name servers as one: who is silent is noticed once, costs the others nothing, and is asked again when back."""

import asyncio
import logging
from functools import partial

import dns.name
import dns.rdatatype
import pytest

from egress_gateway.dns import upstream as module
from egress_gateway.dns.answer import ResolveError, ResolveFailure
from egress_gateway.dns.upstream import Upstream
from support.waiting import until

NAME, SLOW = dns.name.from_text("a.example"), dns.name.from_text("slow.example")
A = dns.rdatatype.A
ROOT = (".", "NS", "udp")


async def ask(upstream: Upstream, server, name: dns.name.Name = NAME, within: float = 0.2) -> ResolveFailure | None:
    """What went wrong, if anything did."""
    try:
        await upstream.ask(server.endpoint, name, A, within=within)
    except ResolveError as error:
        return error.kind
    return None


async def make_silent(upstream: Upstream, *servers) -> None:
    for server in servers:
        server.mute = True
        assert await ask(upstream, server) is ResolveFailure.TIMEOUT
        await until(partial(upstream._health.is_silent, server.endpoint), "a silent server")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.2)
    monkeypatch.setattr(module, "AT_ONCE", 0.05)


async def test_a_server_that_answers_is_ready_and_nothing_more_is_asked(server) -> None:
    upstream = Upstream()
    assert await upstream.ready((server.endpoint,), NAME) == (server.endpoint,)
    assert await ask(upstream, server) is None
    assert server.queries == [("a.example", "A", "udp")]


async def test_a_silent_server_is_noticed_after_one_time_out(server, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()
    server.mute = True
    started = asyncio.get_running_loop().time()
    assert await ask(upstream, server, within=0.3) is ResolveFailure.TIMEOUT
    assert upstream._health.is_silent(server.endpoint), "by then the check is over as well"
    assert asyncio.get_running_loop().time() - started < 0.5
    assert server.queries == [("a.example", "A", "udp"), ROOT]
    assert f"the name server 127.0.0.1 port {server.endpoint[1]} has fallen silent" in caplog.text
    asked = server.count()
    started = asyncio.get_running_loop().time()
    assert await ask(upstream, server) is ResolveFailure.TIMEOUT, "the next attempt is not even made"
    assert asyncio.get_running_loop().time() - started < 0.05
    assert server.count() == asked
    await upstream.close()


async def test_where_all_are_silent_lookups_fail_at_once(server, second_server) -> None:
    upstream = Upstream()
    await make_silent(upstream, server, second_server)
    both = (server.endpoint, second_server.endpoint)
    started = asyncio.get_running_loop().time()
    results = await asyncio.gather(*(upstream.ready(both, NAME) for _ in range(50)), return_exceptions=True)
    assert asyncio.get_running_loop().time() - started < 0.2
    assert {result.kind for result in results if isinstance(result, ResolveError)} == {ResolveFailure.TIMEOUT}
    assert len(results) == 50
    assert "silent for a while" in str(results[0])
    await upstream.close()


async def test_a_silent_server_is_checked_by_one_lookup_at_a_time(server) -> None:
    upstream = Upstream()
    await make_silent(upstream, server)
    await asyncio.sleep(0.01)
    asked = server.count()
    await asyncio.gather(*(upstream.ready((server.endpoint,), NAME) for _ in range(50)), return_exceptions=True)
    assert server.count() == asked + 2, "the root, and the name"
    await upstream.close()


async def test_one_that_is_back_answers_the_first_that_asks(server, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()
    await make_silent(upstream, server)
    await asyncio.sleep(0.25)  # no check is under way
    server.mute = False
    caplog.clear()
    assert await upstream.ready((server.endpoint,), NAME) == (server.endpoint,)
    assert await ask(upstream, server) is None
    assert "answers again" in caplog.text


async def test_a_server_that_drops_questions_for_the_root_comes_back_too(server) -> None:
    upstream = Upstream()
    await make_silent(upstream, server)
    await asyncio.sleep(0.25)
    server.mute = False
    server.silent(".", "NS")
    assert await upstream.ready((server.endpoint,), NAME) == (server.endpoint,)
    await upstream.close()


async def test_the_silent_one_is_passed_over_and_found_again_meanwhile(server, second_server) -> None:
    upstream = Upstream()
    both = (server.endpoint, second_server.endpoint)
    await make_silent(upstream, server)
    started = asyncio.get_running_loop().time()
    assert await upstream.ready(both, NAME) == (second_server.endpoint,)
    assert asyncio.get_running_loop().time() - started < 0.04, "nobody waits for it"
    server.mute = False
    await asyncio.sleep(0.25)
    await upstream.ready(both, NAME)
    await until(lambda: not upstream._health.is_silent(server.endpoint), "the server that is back")
    assert await upstream.ready(both, NAME) == both
    await upstream.close()


async def test_one_slow_name_is_nobodys_silence(server) -> None:
    """Who owns a zone must not be able to take the name server away from everybody else."""
    upstream = Upstream()
    server.silent("slow.example")
    for _ in range(3):
        assert await ask(upstream, server, SLOW, within=0.1) is ResolveFailure.TIMEOUT
    assert not upstream._health.is_silent(server.endpoint)
    assert await upstream.ready((server.endpoint,), NAME) == (server.endpoint,)
    assert server.count(".", "NS") == 3


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR"])
async def test_an_error_is_a_word_too(server, rcode: str) -> None:
    upstream = Upstream()
    server.say(".", "NS", rcode=rcode)
    server.silent("slow.example")
    assert await ask(upstream, server, SLOW) is ResolveFailure.TIMEOUT
    assert not upstream._health.is_silent(server.endpoint)


async def test_an_answer_that_comes_during_the_check_ends_the_suspicion(server) -> None:
    upstream = Upstream()
    server.silent(".", "NS")
    server.delay("a.example", "A", 0.12)
    assert await ask(upstream, server, within=0.2) is None
    await asyncio.sleep(0.1)
    assert not upstream._health.is_silent(server.endpoint)


async def test_checking_that_fails_in_an_unforeseen_way_accuses_nobody(
    server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = module.client.ask

    async def fail(where, name, *rest, within):
        if name == dns.name.root:
            raise ZeroDivisionError
        return await real(where, name, *rest, within=within)

    monkeypatch.setattr(module.client, "ask", fail)
    upstream = Upstream()
    server.mute = True
    assert await ask(upstream, server) is ResolveFailure.TIMEOUT
    assert not upstream._health.is_silent(server.endpoint)
    assert "in an unforeseen way" in caplog.text


async def test_closing_ends_the_checks_and_leaves_no_socket(server) -> None:
    upstream = Upstream()
    server.mute = True
    asking = asyncio.create_task(ask(upstream, server, within=0.4))
    await asyncio.sleep(0.25)
    assert server.count(".") == 1, "a check is under way"
    assert server.sockets_to_it() == 2
    asking.cancel()
    await upstream.close()
    await asyncio.wait([asking])
    await asyncio.sleep(0.01)
    assert server.sockets_to_it() == 0


async def test_with_tasks_that_start_eagerly_nothing_changes(server, caplog: pytest.LogCaptureFixture) -> None:
    """mitmproxy runs with asyncio's eager task factory."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    try:
        upstream = Upstream()
        await make_silent(upstream, server)
        with pytest.raises(ResolveError):
            await upstream.ready((server.endpoint,), NAME)
        await asyncio.sleep(0.25)
        server.mute = False
        assert await upstream.ready((server.endpoint,), NAME) == (server.endpoint,)
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
