"""What a rule allows must work: the gateway tells the addresses of a name that the user says is allowed."""

from __future__ import annotations

from egress_gateway.containment import judge
from egress_gateway.containment.attempt.heard import Kind
from egress_gateway.containment.outcome import Status, Told, Verdict
from egress_gateway.containment.spoken import dns

from .led import ask_over_udp
from .setting import Probe, Setting


def has_addresses(server: str, name: str, kind: int) -> Probe:
    """`kind` is the type of its record, A or AAAA."""

    def probe(setting: Setting) -> Verdict:
        near = ask_over_udp(server, dns.question(name, kind))(setting.place.hops, setting.deadline)
        if near.kind is not Kind.ANSWER:
            return Verdict(Status.BROKEN, Told.SILENT, f"no answer for {name} by the gateway: {judge.describe(near)}")
        reading = dns.read(near.data)
        return Verdict(_status(near.data), Told.GATEWAY, f"the gateway answered for {name}: {reading.words}")

    return probe


def _status(data: bytes) -> Status:
    try:
        answer = dns.parse(data)
    except dns.Malformed:
        return Status.BROKEN
    # A name may well have no IPv6 address, which is not the gateway's fault; but it may have one that is not told.
    return Status.WORKS if answer.code == 0 and not answer.filtered else Status.BROKEN
