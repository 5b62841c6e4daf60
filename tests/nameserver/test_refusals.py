"""What a question is answered that has no records to its name."""

from __future__ import annotations

import time

import pytest

from dns import message as wire
from dns import rcode
from egress_gateway.dns.answer import ResolveFailure
from egress_gateway.nameserver import refusals as module
from egress_gateway.nameserver.message import Question, read
from egress_gateway.nameserver.refusals import Asked, Refusal, Teller, failed_lookup
from egress_gateway.policy.reason import Reason
from support.relay_server import rule

from .conftest import CLIENT, Ask

QUERY = wire.make_query("a.example", "A", use_edns=0)
A_EXAMPLE = rule("a.example", (443, "https"))


def asked() -> Asked:
    question = read(QUERY.to_wire())
    assert isinstance(question, Question)
    return Asked((CLIENT, 1), question, "a.example")


@pytest.mark.parametrize("failure", ResolveFailure)
def test_every_failure_of_a_lookup_has_an_answer(failure: ResolveFailure) -> None:
    reply = failed_lookup(failure)
    is_no_answer = failure in (ResolveFailure.NXDOMAIN, ResolveFailure.NO_DATA)
    assert (reply.rcode == rcode.SERVFAIL) is not is_no_answer
    assert (reply.why is None) is is_no_answer
    assert reply.answer == ()


@pytest.mark.parametrize("denied", ["refused", "nxdomain"])
@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.ALLOWED])
def test_every_refusal_has_an_answer_without_records_that_tells_the_reason(
    ask: Ask, reason: Reason, denied: str
) -> None:
    gate = ask(A_EXAMPLE, denied=denied).gate
    reply = Teller(gate, time.monotonic).refused(asked(), Refusal(reason))
    assert reply.why is not None
    assert (reply.answer, reply.why.text) == ((), reason.value)
    if reason in (Reason.NO_RULE, Reason.DENIED_BY_RULE, Reason.MALFORMED_HOST, Reason.LABEL_TOO_LONG):
        assert reply.rcode == (rcode.NXDOMAIN if denied == "nxdomain" else rcode.REFUSED)
    if reason in (Reason.RATE_LIMITED, Reason.PROTOCOL_NOT_ALLOWED):
        assert reply.rcode == rcode.REFUSED


def test_what_failed_is_answered_even_where_writing_is_what_fails(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    asking = ask(A_EXAMPLE)
    monkeypatch.setattr(module.message, "write", fail)
    teller = Teller(asking.gate, time.monotonic)
    reply = teller.failed(QUERY.to_wire(), asked().question, (CLIENT, 1), udp=True)
    assert reply is not None
    assert wire.from_wire(reply).rcode() == rcode.SERVFAIL
    assert asking.seen.errors == ["dns"]
    assert teller.failed(b"short", None, (CLIENT, 1), udp=True) is None
