"""What a request asks but for its path: remembered for exactly those that differ in nothing else."""

from __future__ import annotations

import gc
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from egress_gateway.policy.hostname import parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.relay.http1 import LastHead, Malformed, RequestHead, parse_request
from egress_gateway.relay.question import Question, read_question
from egress_gateway.relay.target import Asked, NotUnderstood, OriginalTarget, ProxyTarget, TunnelTarget, read_target
from support.relay_server import answers, conversation, request, rule

PROXY = ProxyTarget()
TARGETS = [PROXY, TunnelTarget(parse_host("a.example"), 80), OriginalTarget(ip_address("192.0.2.1"), 80)]


def raw(target: str, *fields: str, method: str = "GET", version: str = "1.1", host: str = "a.example") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", f"Host: {host}", *fields, "\r\n"]).encode()


def path_of_second(first: bytes, second: bytes) -> str | None:
    """The path that is taken from `second` because it asks what `first` has asked."""
    last: LastHead[RequestHead] = LastHead()
    question = read_question(parse_request(first, last=last), PROXY)
    assert isinstance(question, Question)
    return question.path_in(parse_request(second, last=last))


A = "http://a.example"
SAME = {
    "another path": (raw(f"{A}/1"), raw(f"{A}/2?q=/"), "/2?q=/"),
    "the same path": (raw(f"{A}/1"), raw(f"{A}/1"), "/1"),
    "an address with a port": (raw("http://[2001:db8::1]:80/a", host="[2001:db8::1]:80"),
                               raw("http://[2001:db8::1]:80/b", host="[2001:db8::1]:80"), "/b"),
    "a path that holds the prefix": (raw(f"{A}/1"), raw(f"{A}/{A}/1"), f"/{A}/1"),
}  # fmt: skip


@pytest.mark.parametrize(("first", "second", "path"), SAME.values(), ids=SAME)
def test_another_path_of_the_same_host_is_the_same_question(first: bytes, second: bytes, path: str) -> None:
    assert path_of_second(first, second) == path


X = "X: 1"
OTHERS = {
    "another host": raw("http://b.example/1", X),
    "a host that goes on": raw(f"{A}.evil.example/1", X),
    "a port": raw(f"{A}:81/1", X),
    "credentials": raw(f"{A}@evil.example/1", X),
    "a query and no path": raw(f"{A}?x", X),
    "no path": raw(A, X),
    "a fragment": raw(f"{A}/1#x", X),
    "a backslash after the host": raw(f"{A}\\@evil.example/", X),
    "another scheme": raw("https://a.example/1", X),
    "the scheme in upper case": raw("HTTP://a.example/1", X),
    "another method": raw(f"{A}/1", X, method="POST"),
    "another version": raw(f"{A}/1", X, version="1.0"),
    "another Host": raw(f"{A}/1", X, host="b.example"),
    "a body": raw(f"{A}/1", X, "Content-Length: 5"),
    "an upgrade": raw(f"{A}/1", X, "Connection: upgrade", "Upgrade: websocket"),
    "one byte of one field": raw(f"{A}/1", "X: 2"),
    "one field less": raw(f"{A}/1"),
}


@pytest.mark.parametrize("second", OTHERS.values(), ids=OTHERS)
def test_whatever_else_differs_is_another_question(second: bytes) -> None:
    assert path_of_second(raw(f"{A}/1", "X: 1"), second) is None


@pytest.mark.parametrize("target", [A, f"{A}?q"], ids=["no path", "a query alone"])
def test_a_path_that_was_made_is_not_taken_for_one_that_came(target: str) -> None:
    assert path_of_second(raw(target), raw(f"{A}/1")) is None
    assert path_of_second(raw(target), raw(target)) is None


targets = st.sampled_from(
    ["/", "/x", "*", "/#", "//a.example/x", A, f"{A}/", f"{A}/x", f"{A}/?", f"{A}?x", f"{A}/#", f"{A}:80/x",
     f"{A}//a.example/", "http://b.example/x", "https://a.example/x"]
)  # fmt: skip
messages = st.builds(
    lambda target, host, version, method, more: raw(target, *more, host=host, version=version, method=method),
    targets,
    st.sampled_from(["a.example", "A.example", "a.example:80", "b.example", ""]),
    st.sampled_from(["1.1", "1.0"]),
    st.sampled_from(["GET", "OPTIONS", "CONNECT"]),
    st.lists(st.sampled_from(["Content-Length: 1", "Connection: close", "Upgrade: x", "X:  1"]), max_size=2),
)


@given(messages, messages, st.sampled_from(TARGETS))
@example(raw(f"{A}/x"), raw(f"{A}/"), PROXY)
def test_what_is_remembered_is_what_would_be_read(
    first: bytes, second: bytes, target: ProxyTarget | TunnelTarget | OriginalTarget
) -> None:
    """The naive way: parse and read each on its own."""
    last: LastHead[RequestHead] = LastHead()
    try:
        question = read_question(parse_request(first, last=last), target)
        head = parse_request(second, last=last)
    except Malformed:
        return
    if isinstance(question, NotUnderstood):
        return
    path = question.path_in(head)
    alone = parse_request(second)
    assert (head.method, head.target, head.minor, head.headers) == (
        alone.method, alone.target, alone.minor, alone.headers,
    )  # fmt: skip
    if path is None:
        return
    naive, again = read_target(alone, target), read_question(alone, target)
    assert isinstance(naive, Asked)
    assert isinstance(again, Question)
    assert (path, question.request, question.wants_tls) == (naive.path, naive.request, naive.wants_tls)
    for fact in ("framing", "websocket", "upgrades", "keep_alive", "protocol", "authority"):
        assert getattr(question, fact) == getattr(again, fact)


async def test_rules_that_are_no_longer_in_force_are_not_kept_by_who_was_judged_by_them() -> None:
    async with conversation(answers) as (client, server, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        assert (await client.ask(request(there, "/2"))).status == 200
        old = server.gate.ruleset
        server.gate.use(RuleSet.build([rule("a.example", (there.port, "http"))]))
        assert [type(holder) for holder in gc.get_referrers(old)] == []


async def test_the_same_question_is_judged_by_the_rules_of_the_moment() -> None:
    async with conversation(answers) as (client, server, there):
        assert (await client.ask(request(there, "/1"))).status == 200
        assert (await client.ask(request(there, "/2"))).status == 200
        server.gate.use(RuleSet.build([rule("b.example", (there.port, "http"))]))
        assert (await client.ask(request(there, "/3"))).reason == Reason.NO_RULE
        server.gate.use(RuleSet.build([rule("a.example", (there.port, "http"), name="again")]))
        assert (await client.ask(request(there, "/4"))).status == 200
        server.gate.close("for a test")
        assert (await client.ask(request(there, "/5"))).reason == Reason.NOT_READY
        server.gate.open()
        assert (await client.ask(request(there, "/6"))).status == 200
        assert [exchange.path for exchange in await server.finished(6)] == [f"/{number}" for number in range(1, 7)]
        assert [exchange.verdict.rule_key for exchange in server.seen.exchanges if exchange.verdict.allowed] == [
            "default/allow-a.example", "default/allow-a.example", "default/again", "default/again",
        ]  # fmt: skip
