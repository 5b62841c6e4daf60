"""One client connection from its first byte to its last; nothing of ours escapes."""

from __future__ import annotations

import pytest

from egress_gateway.policy.reason import Reason
from egress_gateway.relay import serve as module
from egress_gateway.relay.serve import MODES
from support.relay_server import answers, conversation, relay_server, request, rule, talk
from support.waiting import until


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), AssertionError(), RecursionError()])
async def test_an_exception_of_our_own_is_a_refusal_that_is_counted(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    monkeypatch.setitem(module._BY_MODE, "regular", fail)
    async with relay_server([rule("*", (80, "http"))]) as server, talk(server) as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()
        (exchange,) = await server.finished()
        assert (exchange.reason, exchange.verdict.allowed) == (Reason.INTERNAL_ERROR, False)
        assert server.seen.errors == ["relay"]
        assert [verdict.reason for verdict in server.seen.decisions] == [Reason.INTERNAL_ERROR]


async def test_a_client_that_is_gone_is_nobodys_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setitem(module._BY_MODE, "regular", fail)
    async with relay_server([]) as server, talk(server) as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert server.seen.errors == []
        assert server.seen.exchanges == []


async def test_a_mode_that_nobody_knows_is_refused() -> None:
    async with relay_server([rule("*", (80, "http"))], mode="reverse") as server, talk(server) as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert (await server.finished())[0].reason is Reason.INTERNAL_ERROR
    assert "reverse" not in MODES


async def test_a_transparent_client_without_an_original_address_is_refused() -> None:
    async with relay_server([rule("*", (80, "http"))], mode="transparent") as server, talk(server) as client:
        with pytest.raises(ConnectionResetError):
            await client.rest()
        assert (await server.finished())[0].reason is Reason.INTERNAL_ERROR


async def test_every_connection_is_told_when_it_opens_and_when_it_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with conversation(answers) as (client, server, there):
        assert (await client.ask(request(there))).status == 200, "this one has been told of already"
        told: list[str] = []
        monkeypatch.setattr(server.seen, "connection_opened", lambda mode: told.append(f"+{mode}"))
        monkeypatch.setattr(server.seen, "connection_closed", lambda mode: told.append(f"-{mode}"))
        async with talk(server) as another:
            assert (await another.ask(request(there))).status == 200
        await until(lambda: len(told) >= 2, "both are told")
        assert told == ["+regular", "-regular"]
        assert (await client.ask(request(there))).status == 200


async def test_a_decision_that_fails_lets_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with conversation(answers) as (client, server, there):
        monkeypatch.setattr("egress_gateway.gate.gatekeeper.policy.decide", lambda *_: None)
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (503, "internal_error")
        assert server.names.asked == []
        assert there.peers == []
        assert server.seen.errors == ["decide"]
        server.seen.errors.clear()


async def test_a_closed_gateway_refuses_everything() -> None:
    async with conversation(answers) as (client, server, there):
        assert (await client.ask(request(there))).status == 200
        server.gate.close("the rules are gone")
        reply = await client.ask(request(there))
        assert (reply.status, reply.reason) == (503, "not_ready")
        assert len(there.peers) == 1
