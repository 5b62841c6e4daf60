"""Who answered, told by how far the packet could go."""

from __future__ import annotations

import pytest

from egress_gateway.containment import judge
from egress_gateway.containment.attempt.heard import Heard, Kind
from egress_gateway.containment.outcome import Status, Told, Verdict
from egress_gateway.containment.place import Place
from egress_gateway.containment.spoken.reading import Meaning, Reading

GATEWAY, TARGET, ROUTER, OWN = "10.0.0.1", "203.0.113.9", "198.51.100.1", "10.0.0.7"
PLACE = Place(1, (GATEWAY,), OWN)

SILENT, RESET, CLOSED, QUIET = Heard(Kind.SILENT), Heard(Kind.RESET), Heard(Kind.CLOSED), Heard(Kind.QUIET)
FILTERED, UNSENT = Heard(Kind.FILTERED), Heard(Kind.UNSENT, words="no buffer space available")
UNREACHABLE = Heard(Kind.ERROR, words="no route to host")
OVER = "time to live over"
FILTER = "this machine's own packet filter does not let it out"


def says(meaning: Meaning) -> Heard:
    return Heard(Kind.ANSWER, meaning.name.encode())


def read(data: bytes) -> Reading:
    return Reading(Meaning[data.decode()], "its words")


def error(by: str, words: str = "port unreachable") -> Heard:
    return Heard(Kind.ERROR, words=words, by=by)


def expired(by: str) -> Heard:
    return Heard(Kind.EXPIRED, by=by)


def stopped(told: Told, how: str) -> Verdict:
    return Verdict(Status.STOPPED, told, how)


def is_open(told: Told, how: str) -> Verdict:
    return Verdict(Status.OPEN, told, how)


def broken(told: Told, how: str) -> Verdict:
    return Verdict(Status.BROKEN, told, how)


LED: dict[str, tuple[Heard, Heard | None, Verdict]] = {
    "the gateway refuses": (says(Meaning.REFUSAL), None, stopped(Told.GATEWAY, "led to the gateway: its words")),
    "it signs its refusal": (says(Meaning.SIGNED), None, stopped(Told.GATEWAY, "led to the gateway: its words")),
    "it is not in order": (says(Meaning.FAILURE), None, broken(Told.GATEWAY, "the gateway is not in order: its words")),
    "it lets it through": (says(Meaning.OTHER), None, is_open(Told.ANSWERED, "the gateway lets it through: its words")),
    "it closes": (
        CLOSED, None, broken(Told.ANSWERED, "the gateway does not serve it: it closed the connection without a byte"),
    ),
    "it says nothing": (
        QUIET, None, broken(Told.ANSWERED, "the gateway does not serve it: it took the connection and said nothing"),
    ),
    "it does not listen, TCP": (RESET, None, broken(Told.RESET, "the gateway does not serve it: reset")),
    "it does not listen, UDP": (
        error(GATEWAY), None,
        broken(Told.UNREACHABLE, f"the gateway does not serve it: port unreachable, said {GATEWAY}"),
    ),
    "somebody behind answers": (
        expired(GATEWAY), says(Meaning.OTHER), is_open(Told.ANSWERED, "answered from behind the gateway: its words"),
    ),
    "somebody behind refuses in the gateway's words": (
        UNREACHABLE, says(Meaning.REFUSAL), is_open(Told.ANSWERED, "answered from behind the gateway: its words"),
    ),
    "a gateway further away signs": (
        SILENT, says(Meaning.SIGNED), stopped(Told.GATEWAY, "led to a gateway: its words"),
    ),
    "somebody behind takes the connection": (
        SILENT, QUIET, is_open(Told.ANSWERED, "connected to somebody behind the gateway"),
    ),
    "somebody behind closes it": (
        UNREACHABLE, CLOSED, is_open(Told.ANSWERED, "connected to somebody behind the gateway"),
    ),
    "nobody answers": (SILENT, SILENT, broken(Told.SILENT, "does not lead to the gateway: no answer")),
    "it is rejected": (expired(GATEWAY), RESET, broken(Told.RESET, "does not lead to the gateway: reset")),
    "this machine holds it": (FILTERED, FILTERED, broken(Told.LOCAL, f"does not lead to the gateway: {FILTER}")),
}  # fmt: skip


@pytest.mark.parametrize("case", LED)
def test_a_way_that_must_lead_to_the_gateway(case: str) -> None:
    near, full, verdict = LED[case]
    assert judge.is_near_enough(near) is (full is None)
    assert judge.led(near, full, read) == verdict


CONNECTED: dict[str, tuple[Heard, Verdict]] = {
    "somebody behind": (UNREACHABLE, is_open(Told.ANSWERED, "connected")),
    "the gateway, which refuses": (says(Meaning.SIGNED), stopped(Told.GATEWAY, "led to the gateway: its words")),
    "the gateway, which closes": (CLOSED, stopped(Told.GATEWAY, "led to the gateway, which closed it")),
    "the gateway, which passes on what a server says": (
        says(Meaning.OTHER),
        is_open(Told.ANSWERED, "the gateway took it and did not refuse: a rule may allow it"),
    ),
    "the gateway, which waits": (
        QUIET,
        is_open(Told.ANSWERED, "the gateway took it and did not refuse: a rule may allow it"),
    ),
}


@pytest.mark.parametrize("case", CONNECTED)
def test_a_connection_that_somebody_took(case: str) -> None:
    near, verdict = CONNECTED[case]
    assert judge.connected(near, read) == verdict


FURTHER = "said by somebody further away than the gateway"
NOT_CONNECTED: dict[str, tuple[Heard, Heard, Verdict]] = {
    "reset by the gateway": (RESET, RESET, stopped(Told.RESET, "reset")),
    "reset by the target": (
        RESET, UNREACHABLE, is_open(Told.PASSED, "reset by somebody further away than the gateway"),
    ),
    "reset by the target, with a silent router before it": (
        RESET, SILENT, is_open(Told.PASSED, "reset by somebody further away than the gateway"),
    ),
    "a silent target, and a router before it that is not": (
        SILENT, UNREACHABLE,
        is_open(Told.PASSED, "no answer, but a router behind the gateway had it: no route to host"),
    ),
    "silence": (SILENT, SILENT, stopped(Told.SILENT, "no answer")),
    "an answer that was lost the first time": (SILENT, RESET, stopped(Told.RESET, "reset")),
    "unreachable, nearby": (UNREACHABLE, UNREACHABLE, stopped(Told.UNREACHABLE, "no route to host")),
    "unreachable, far away": (UNREACHABLE, SILENT, is_open(Told.PASSED, f"no route to host, {FURTHER}")),
    "connected the second time": (SILENT, CLOSED, is_open(Told.ANSWERED, "connected")),
    "held by this machine": (FILTERED, FILTERED, stopped(Told.LOCAL, FILTER)),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_CONNECTED)
def test_a_connection_that_nobody_took(case: str) -> None:
    full, past, verdict = NOT_CONNECTED[case]
    assert judge.not_connected(full, past) == verdict


DATAGRAM: dict[str, tuple[Heard, Heard | None, Verdict]] = {
    "an answer": (says(Meaning.OTHER), None, is_open(Told.ANSWERED, "answered")),
    "an answer to the second": (SILENT, says(Meaning.OTHER), is_open(Told.ANSWERED, "answered")),
    "the gateway rejects it": (
        error(GATEWAY), None, stopped(Told.UNREACHABLE, f"port unreachable, said {GATEWAY}"),
    ),
    "the gateway rejects the second": (
        SILENT, error(GATEWAY), stopped(Told.UNREACHABLE, f"port unreachable, said {GATEWAY}"),
    ),
    "the gateway is this very machine": (error(OWN), None, stopped(Told.UNREACHABLE, f"port unreachable, said {OWN}")),
    "the target rejects it": (
        error(TARGET), None, is_open(Told.ANSWERED, f"it arrived: port unreachable, said {TARGET}"),
    ),
    "a router behind rejects it": (
        error(ROUTER), None, is_open(Told.PASSED, f"it went past the gateway: port unreachable, said {ROUTER}"),
    ),
    "a router behind had the second": (
        SILENT, expired(ROUTER), is_open(Told.PASSED, f"it went past the gateway: {OVER}, said {ROUTER}"),
    ),
    "the gateway is further than thought": (SILENT, expired(GATEWAY), stopped(Told.SILENT, "no answer")),
    "silence": (SILENT, SILENT, stopped(Told.SILENT, "no answer")),
    "held by this machine": (FILTERED, None, stopped(Told.LOCAL, FILTER)),
    "not sent at all": (
        UNSENT, None,
        Verdict(Status.UNTESTED, Told.LOCAL, "this machine could not send it: no buffer space available"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATAGRAM)
def test_a_datagram(case: str) -> None:
    full, past, verdict = DATAGRAM[case]
    assert judge.needs_past(full) is (past is not None)
    assert judge.datagram(full, past, TARGET, PLACE) == verdict
