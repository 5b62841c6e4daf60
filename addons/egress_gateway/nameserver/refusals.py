"""What a question is answered that has no records to its name, and who is told of it.

- A refusal is counted and is a line of the access log. What one client can make happen a thousand times a second
  (asking too often, sending nonsense) is counted every time and logged once a second.
- A question that was allowed is counted, whatever came of it.
- A refusal carries its reason, as an extended error (RFC 8914), for clients that speak EDNS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import dns.rcode
import dns.rdatatype
from dns.edns import EDECode

from egress_gateway.dns.answer import ResolveFailure
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, Host, format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.verdict import Treatment, Verdict

from . import message
from .message import Question, Reply, Why
from .rate import Seldom

PROTOCOL = "dns"
"""The label of decisions, and the place in which our own code fails."""
DNS_PORT = 53

_SHOWN = frozenset(
    (
        *("A", "AAAA", "ANY", "AXFR", "CAA", "CNAME", "DNSKEY", "DS", "HTTPS", "IXFR"),
        *("MX", "NAPTR", "NS", "PTR", "SOA", "SRV", "SVCB", "TXT"),
    )
)
"""The types that a log line names."""
_ONCE_A_SECOND = frozenset({Reason.RATE_LIMITED, Reason.MALFORMED_REQUEST})

_REFUSED: dict[Reason, tuple[dns.rcode.Rcode, EDECode]] = {
    Reason.NOT_READY: (dns.rcode.SERVFAIL, EDECode.NOT_READY),
    Reason.INTERNAL_ERROR: (dns.rcode.SERVFAIL, EDECode.OTHER),
    Reason.ADDRESS_NOT_ALLOWED: (dns.rcode.NOERROR, EDECode.BLOCKED),
    Reason.RATE_LIMITED: (dns.rcode.REFUSED, EDECode.PROHIBITED),
    Reason.PROTOCOL_NOT_ALLOWED: (dns.rcode.REFUSED, EDECode.NOT_SUPPORTED),
}
"""Reasons that are not here are of the name, and look as option `egress_dns_denied` says."""

_FAILED: dict[ResolveFailure, tuple[dns.rcode.Rcode, EDECode | None]] = {
    ResolveFailure.NXDOMAIN: (dns.rcode.NXDOMAIN, None),
    ResolveFailure.NO_DATA: (dns.rcode.NOERROR, None),
    ResolveFailure.TIMEOUT: (dns.rcode.SERVFAIL, EDECode.NO_REACHABLE_AUTHORITY),
    ResolveFailure.SERVFAIL: (dns.rcode.SERVFAIL, EDECode.NETWORK_ERROR),
    ResolveFailure.REFUSED: (dns.rcode.SERVFAIL, EDECode.NETWORK_ERROR),
    ResolveFailure.MALFORMED: (dns.rcode.SERVFAIL, EDECode.INVALID_DATA),
    ResolveFailure.OVERLOADED: (dns.rcode.SERVFAIL, EDECode.OTHER),
}


@dataclass(eq=False)
class Refusal(Exception):
    """Raised where a question ends in one."""

    reason: Reason
    rule: EgressRule | None = None
    detail: str = ""
    resolved: tuple[Address, ...] = ()


@dataclass(slots=True)
class Asked:
    """What is known of a question so far."""

    client: tuple[str, int]
    question: Question
    text: str
    """The name that was asked for, not canonical yet."""
    host: Host | None = None
    rule: EgressRule | None = None
    """The rule that allows it."""


def failed_lookup(failure: ResolveFailure) -> Reply:
    """For a name that was allowed, and that others have no answer for."""
    rcode, code = _FAILED[failure]
    return Reply(rcode, why=Why(code, failure.value) if code is not None else None)


class Teller:
    """Counts, logs, and finds the words."""

    def __init__(
        self, gate: Gatekeeper, clock: Callable[[], float], show: Callable[[Exchange], None] = lambda _: None
    ) -> None:
        self._gate = gate
        self._clock = clock
        self._show = show
        self._seldom = Seldom()

    def allowed(self, asked: Asked) -> None:
        self._gate.allowed_again(Verdict(Treatment.FORWARD, Reason.ALLOWED, asked.rule, DNS_PORT), PROTOCOL)

    def refused(self, asked: Asked, refusal: Refusal) -> Reply:
        verdict = self._gate.refused(refusal.reason, PROTOCOL, refusal.rule)
        exchange = self._begin(asked.client, verdict, refusal.detail)
        if exchange is not None:
            kind = dns.rdatatype.to_text(asked.question.rdtype)
            exchange.method = kind if kind in _SHOWN else ""
            exchange.host = asked.host
            exchange.authority = f"{asked.text}:{DNS_PORT}"
            if asked.host is not None:
                exchange.authority = format_authority(asked.host, DNS_PORT)
            exchange.resolved = refusal.resolved
            self._finish(exchange)
        of_the_name = dns.rcode.NXDOMAIN if self._gate.settings.name_server.denied == "nxdomain" else dns.rcode.REFUSED
        rcode, code = _REFUSED.get(refusal.reason, (of_the_name, EDECode.BLOCKED))
        return Reply(rcode, why=Why(code, refusal.reason.value))

    def unreadable(self, client: tuple[str, int], reason: Reason) -> None:
        """Something came that is no question that can be read."""
        self._tell(client, reason, "not a question that can be read")

    def failed(
        self, data: bytes, asked: Question | bytes | None, client: tuple[str, int], *, udp: bool
    ) -> bytes | None:
        """The answer where our own code has failed, which it must not do once more."""
        reply: bytes | None = None
        try:
            if message.may_be_answered(data):
                reply = message.bare(data, dns.rcode.SERVFAIL)
            if isinstance(asked, Question):
                why = Why(EDECode.OTHER, Reason.INTERNAL_ERROR.value)
                reply, _ = message.write(asked, Reply(dns.rcode.SERVFAIL, why=why), udp=udp)
            self._tell(client, Reason.INTERNAL_ERROR, "answering failed; the gateway's own log says why")
        except Exception:
            self._gate.failed(PROTOCOL)
        return reply

    def _tell(self, client: tuple[str, int], reason: Reason, detail: str) -> None:
        exchange = self._begin(client, self._gate.refused(reason, PROTOCOL), detail)
        if exchange is not None:
            self._finish(exchange)

    def _begin(self, client: tuple[str, int], verdict: Verdict, detail: str) -> Exchange | None:
        """An exchange to tell of a refusal by; None where enough of its kind were told."""
        if verdict.reason in _ONCE_A_SECOND and not self._seldom.may_say(verdict.reason, self._clock()):
            return None
        exchange = self._gate.begin(client)
        exchange.protocol, exchange.port = "DNS", DNS_PORT
        exchange.verdict = verdict
        exchange.detail = detail
        return exchange

    def _finish(self, exchange: Exchange) -> None:
        self._gate.finish(exchange)
        self._show(exchange)
