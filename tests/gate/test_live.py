"""What is open at the moment, and how it is ended."""

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from egress_gateway.gate import live as live_module
from egress_gateway.gate.live import LiveConnection, LiveConnections
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict, refuse

YES, NO = Verdict(Treatment.BYTES, Reason.ALLOWED), refuse(Reason.NO_RULE)


def connection(end: Callable[[Verdict], None]) -> LiveConnection:
    request = Request(Hostname("a.example"), 443)
    return LiveConnection(request, Treatment.BYTES, ip_address("192.0.2.1"), 443, end)


def test_equal_connections_are_two() -> None:
    live = LiveConnections()
    one, other = connection(print), connection(print)
    live.add(one)
    live.add(other)
    live.add(one)
    assert len(live) == 2
    live.discard(one)
    live.discard(one)
    assert len(live) == 1


def test_only_what_is_refused_is_ended_and_told_why() -> None:
    live, ended = LiveConnections(), []
    keep, drop = (
        connection(lambda why: ended.append(("keep", why))),
        connection(lambda why: ended.append(("drop", why))),
    )
    live.add(keep)
    live.add(drop)
    assert live.judge_again(lambda one: NO if one is drop else YES) == 1
    assert ended == [("drop", NO)]


def test_a_connection_may_leave_or_enter_while_others_are_ended() -> None:
    live, ended = LiveConnections(), []

    def end(why: Verdict) -> None:
        ended.append(why)
        live.discard(one)
        live.add(connection(ended.append))

    one = connection(end)
    live.add(one)
    assert live.judge_again(lambda _: NO) == 1
    assert (len(live), ended) == (1, [NO])


def test_one_that_cannot_be_ended_does_not_keep_the_others(caplog: pytest.LogCaptureFixture) -> None:
    live, ended = LiveConnections(), []

    def fail(_: Verdict) -> None:
        raise RuntimeError

    for end in (fail, ended.append, fail, ended.append):
        live.add(connection(end))
    assert live.judge_again(lambda _: NO) == 4
    assert ended == [NO, NO]
    assert "could not be ended" in caplog.text


async def test_many_are_judged_in_turns_with_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "TURN", 0.0)  # a turn is one connection
    live, ended = LiveConnections(), []
    turns = 0

    async def something_else() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for _ in range(50):
        live.add(connection(ended.append))
    other = asyncio.create_task(something_else())
    assert await live.judge_in_turns(lambda _: NO) == 50
    assert len(ended) == 50
    assert turns >= 49
    other.cancel()


async def test_one_that_leaves_between_turns_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_module, "TURN", 0.0)
    live, judged = LiveConnections(), []
    for _ in range(3):
        live.add(connection(print))

    def judge(one: object) -> Verdict:
        judged.append(one)
        for each in list(live._open):
            if each is not one:
                live.discard(each)
        return YES

    assert await live.judge_in_turns(judge) == 0
    assert len(judged) == 1
