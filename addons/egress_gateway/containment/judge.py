"""From what came back to a verdict. Pure; each function is one way of telling who answered.

`near` is what came back to a packet that can reach the gateway and nobody behind it, `past` to one that may go a single
hop further, `full` to one without such a limit.
"""

from __future__ import annotations

from .attempt.heard import Heard, Kind
from .outcome import Status, Told, Verdict
from .place import Place
from .spoken.reading import Meaning, Read

# Ways that must lead to the gateway: HTTP, TLS, DNS.


def is_near_enough(near: Heard) -> bool:
    """Whether `near` tells all, so that `full` need not be tried."""
    # TCP hides who sent an ICMP error and which one: it may be the end of the time to live.
    return near.connected or near.kind is Kind.RESET or (near.kind is Kind.ERROR and bool(near.by))


def led(near: Heard, full: Heard | None, read: Read) -> Verdict:
    """The verdict over a way that must lead to the gateway; `full` if `near` was not enough."""
    if full is None:
        return _gateway_answered(near, read)
    if full.kind is Kind.ANSWER:
        reading = read(full.data)
        if reading.meaning is Meaning.SIGNED:
            return Verdict(Status.STOPPED, Told.GATEWAY, f"led to a gateway: {reading.words}")
        return Verdict(Status.OPEN, Told.ANSWERED, f"answered from behind the gateway: {reading.words}")
    if full.connected:
        return Verdict(Status.OPEN, Told.ANSWERED, "connected to somebody behind the gateway")
    return Verdict(Status.BROKEN, _told(full), f"does not lead to the gateway: {describe(full)}")


def _gateway_answered(near: Heard, read: Read) -> Verdict:
    if near.kind is not Kind.ANSWER:
        return Verdict(Status.BROKEN, _told(near), f"the gateway does not serve it: {describe(near)}")
    reading = read(near.data)
    if reading.meaning is Meaning.OTHER:
        return Verdict(Status.OPEN, Told.ANSWERED, f"the gateway lets it through: {reading.words}")
    if reading.meaning is Meaning.FAILURE:
        return Verdict(Status.BROKEN, Told.GATEWAY, f"the gateway is not in order: {reading.words}")
    return Verdict(Status.STOPPED, Told.GATEWAY, f"led to the gateway: {reading.words}")


# TCP that must not get through.


def connected(near: Heard, read: Read) -> Verdict:
    """Somebody took the connection: the gateway, if a rule names the port, or somebody behind it."""
    if not near.connected:
        return Verdict(Status.OPEN, Told.ANSWERED, "connected")
    reading = read(near.data) if near.kind is Kind.ANSWER else None
    if reading is not None and reading.meaning is not Meaning.OTHER:
        return Verdict(Status.STOPPED, Told.GATEWAY, f"led to the gateway: {reading.words}")
    if near.kind is Kind.CLOSED:
        return Verdict(Status.STOPPED, Told.GATEWAY, "led to the gateway, which closed it")
    return Verdict(Status.OPEN, Told.ANSWERED, "the gateway took it and did not refuse: a rule may allow it")


def not_connected(full: Heard, past: Heard) -> Verdict:
    """Nobody took the connection. Whoever prevented it stands no further away than `past` could go."""
    if past.connected:
        return Verdict(Status.OPEN, Told.ANSWERED, "connected")
    if full.kind is Kind.RESET and past.kind is not Kind.RESET:
        return Verdict(Status.OPEN, Told.PASSED, "reset by somebody further away than the gateway")
    if full.kind is Kind.SILENT and past.kind is Kind.ERROR:
        return Verdict(Status.OPEN, Told.PASSED, f"no answer, but a router behind the gateway had it: {past.words}")
    if full.kind is Kind.ERROR and past.kind is Kind.SILENT:
        return Verdict(Status.OPEN, Told.PASSED, f"{full.words}, said by somebody further away than the gateway")
    best = past if full.kind is Kind.SILENT else full
    return Verdict(Status.STOPPED, _told(best), describe(best))


# Datagrams that must not get through.


def needs_past(full: Heard) -> bool:
    return full.kind is Kind.SILENT


def datagram(full: Heard, past: Heard | None, target: str, place: Place) -> Verdict:
    """`past` if `full` was silent."""
    heard = full if past is None else past
    if heard.kind is Kind.ANSWER:
        return Verdict(Status.OPEN, Told.ANSWERED, "answered")
    if heard.kind is Kind.UNSENT:
        return Verdict(Status.UNTESTED, Told.LOCAL, describe(heard))
    if heard.kind in (Kind.SILENT, Kind.FILTERED):
        return Verdict(Status.STOPPED, _told(heard), describe(heard))
    if heard.by == target:
        return Verdict(Status.OPEN, Told.ANSWERED, f"it arrived: {describe(heard)}")
    if not place.is_gateway(heard.by):
        return Verdict(Status.OPEN, Told.PASSED, f"it went past the gateway: {describe(heard)}")
    if heard.kind is Kind.EXPIRED:
        # Our idea of the distance is short by one, so this says nothing.
        return Verdict(Status.STOPPED, Told.SILENT, describe(Heard(Kind.SILENT)))
    return Verdict(Status.STOPPED, _told(heard), describe(heard))


_WORDS = {
    Kind.CLOSED: "it closed the connection without a byte",
    Kind.QUIET: "it took the connection and said nothing",
    Kind.RESET: "reset",
    Kind.FILTERED: "this machine's own packet filter does not let it out",
    Kind.EXPIRED: "time to live over",
    Kind.SILENT: "no answer",
}

_TOLD = {
    Kind.RESET: Told.RESET,
    Kind.ERROR: Told.UNREACHABLE,
    Kind.EXPIRED: Told.UNREACHABLE,
    Kind.FILTERED: Told.LOCAL,
    Kind.UNSENT: Told.LOCAL,
    Kind.SILENT: Told.SILENT,
}


def describe(heard: Heard) -> str:
    """`heard` in a few words."""
    if heard.kind is Kind.UNSENT:
        return f"this machine could not send it: {heard.words}"
    words = _WORDS.get(heard.kind, heard.words)
    return f"{words}, said {heard.by}" if heard.by else words


def _told(heard: Heard) -> Told:
    return _TOLD.get(heard.kind, Told.ANSWERED)
